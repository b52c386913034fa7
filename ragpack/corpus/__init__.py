"""Reads a corpus from disk, record by record, and cuts long documents into passages.

One bad record never stops a job: it comes out as a :class:`BadRecord` that names its place.
"""

from ragpack.corpus.census import Census
from ragpack.corpus.dead_letters import DeadLetters
from ragpack.corpus.files import Corpus
from ragpack.corpus.jsonl import read_jsonl, read_passages
from ragpack.corpus.records import BadRecord, Columns, Item, Record, passage_from
from ragpack.corpus.split import RECORD_TOKENS, Splitter

__all__ = [
    "RECORD_TOKENS",
    "BadRecord",
    "Census",
    "Columns",
    "Corpus",
    "DeadLetters",
    "Item",
    "Record",
    "Splitter",
    "passage_from",
    "read_jsonl",
    "read_passages",
]
