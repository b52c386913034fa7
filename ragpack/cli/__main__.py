"""``python -m ragpack.cli``."""

from ragpack.cli import main

main()
