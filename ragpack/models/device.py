"""Where a model runs unless the caller says so."""

__all__ = ["best_device"]


def best_device() -> str:
    """``"cuda"`` where torch sees a GPU, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
