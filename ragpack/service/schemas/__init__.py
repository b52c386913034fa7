"""The shapes of requests and responses, with examples, as the OpenAPI document shows them."""

from ragpack.service.schemas.base import (
    Answer,
    IndexName,
    MethodChoice,
    PassageIn,
    PassageList,
    ProblemShape,
    Strict,
    passages_from,
)
from ragpack.service.schemas.chat import ChatRequest, ContextChoice
from ragpack.service.schemas.compression import (
    BatchLine,
    BatchRequest,
    CompressRequest,
    CompressResponse,
    Message,
    PackRequest,
    PackResponse,
    PassageResult,
    Report,
    Unit,
)
from ragpack.service.schemas.embeds import EmbedsRequest, EmbedsResponse
from ragpack.service.schemas.index import Deleted, IndexedPassage, IndexRequest, Job
from ragpack.service.schemas.rerank import (
    Ranked,
    RankedDocument,
    RerankRequest,
    RerankResponse,
    RerankUsage,
)

__all__ = [
    "Answer",
    "BatchLine",
    "BatchRequest",
    "ChatRequest",
    "CompressRequest",
    "CompressResponse",
    "ContextChoice",
    "Deleted",
    "EmbedsRequest",
    "EmbedsResponse",
    "IndexName",
    "IndexRequest",
    "IndexedPassage",
    "Job",
    "Message",
    "MethodChoice",
    "PackRequest",
    "PackResponse",
    "PassageIn",
    "PassageList",
    "PassageResult",
    "ProblemShape",
    "Ranked",
    "RankedDocument",
    "Report",
    "RerankRequest",
    "RerankResponse",
    "RerankUsage",
    "Strict",
    "Unit",
    "passages_from",
]
