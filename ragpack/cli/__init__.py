"""The command line: stdout is data, stderr is talk; exit 0 done, 1 failed, 2 wrong usage."""

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``ragpack`` command."""
    from ragpack.cli.app import app
    from ragpack.cli.console import complain
    from ragpack.errors import ConfigError, RagpackError, UnknownPluginError

    try:
        app()
    except (ConfigError, UnknownPluginError) as error:
        complain(error)
        sys.exit(2)
    except RagpackError as error:
        complain(error)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as with "| head"
        sys.stderr.close()
        sys.exit(1)
