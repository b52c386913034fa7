"""Where an indexing job of many machines works, and what on."""

from dataclasses import dataclass

from ragpack.errors import ConfigError

__all__ = ["Cluster", "Work"]

_SHARED = ("redis", "rediss", "redis+cluster", "rediss+cluster")


@dataclass(frozen=True, slots=True)
class Work:
    """Which artifacts to make and where to put them.

    ``methods`` by name; ``dtype`` of the encoders, which is to be that of the machine that asks.
    """

    encoder: str
    methods: tuple[str, ...]
    store: str
    namespace: str
    secret: bytes | None
    dtype: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to work: a store that all machines reach, and how many actors to start.

    The cluster is the one that ``RAY_ADDRESS`` names, or one started on this machine. Each actor
    holds every model and takes one CPU, and one GPU where the cluster has any. ``batch`` passages
    are given to an actor at a time; what a dead one had stored of them its successor finds.

    Raises:
        ConfigError: the store is of one machine, or ``workers`` is below 1.
    """

    store: str
    workers: int = 2
    batch: int = 512

    def __post_init__(self) -> None:
        scheme = self.store.partition("://")[0]
        if scheme not in _SHARED:
            raise ConfigError(
                "the engine ray needs a store that every machine reaches, redis:// or "
                f"redis+cluster://; {scheme}:// is for one machine (take the engine local)"
            )
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, not {self.workers}")
