"""The indexing job: from a corpus on disk to a searchable folder and a warm store."""

from ragpack.index.account import IndexSummary, Progress
from ragpack.index.cluster import Cluster
from ragpack.index.estimate import Estimate, MethodEstimate, estimate
from ragpack.index.indexer import Indexer, VectorIndex
from ragpack.index.job import IndexJob, IndexPlan, IndexResult

__all__ = [
    "Cluster",
    "Estimate",
    "IndexJob",
    "IndexPlan",
    "IndexResult",
    "IndexSummary",
    "Indexer",
    "MethodEstimate",
    "Progress",
    "VectorIndex",
    "estimate",
]
