"""A client for the service, synchronous and asynchronous: httpx, dataclasses and nothing else.

>>> from ragpack.client import Client
>>> with Client("http://localhost:8000", api_key="…") as client:  # doctest: +SKIP
...     packed = client.pack("How long is the tank?", passages, budget=800)
"""

from ragpack.client.aio import AsyncClient
from ragpack.client.batch import Question, Reply
from ragpack.client.calls import Choice
from ragpack.client.shapes import (
    Compression,
    Context,
    Deleted,
    Embeds,
    Job,
    Message,
    Method,
    Model,
    PassageResult,
    Ranked,
    RankedDocument,
    Ranking,
    Readiness,
    Report,
    Unit,
)
from ragpack.client.sync import Client

__all__ = [
    "AsyncClient",
    "Choice",
    "Client",
    "Compression",
    "Context",
    "Deleted",
    "Embeds",
    "Job",
    "Message",
    "Method",
    "Model",
    "PassageResult",
    "Question",
    "Ranked",
    "RankedDocument",
    "Ranking",
    "Readiness",
    "Reply",
    "Report",
    "Unit",
]
