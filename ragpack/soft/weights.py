"""Reads safetensors weights by exact names and shapes; everything else is refused by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ragpack.errors import ConfigError

__all__ = ["fill", "read"]

_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
_SHOWN = 5


def read(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of one safetensors file whose names begin with ``prefix``, named without it.

    Raises:
        ConfigError: there is no such file, or it is none; pickle weights are refused with the
            command that converts them.
    """
    if path.suffix in _PICKLES or (not path.is_file() and _pickle_beside(path)):
        source = path if path.suffix in _PICKLES else _pickle_beside(path)
        raise ConfigError(
            f"{source} is a pickle, which can run code when loaded, and is refused. Convert it "
            'once, where you trust it: python -c "import torch; from safetensors.torch import '
            f"save_file; save_file({{name: part.contiguous() for name, part in torch.load('{source}"
            f"', weights_only=True).items()}}, '{path.with_suffix('.safetensors')}')\""
        )
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} holds no safetensors weights: {error}") from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put ``tensors`` into ``module``, in its own dtype.

    Raises:
        ConfigError: a name or a shape is not the module's; the message has it.
    """
    wanted = module.state_dict()
    _require_none("unknown keys", sorted(tensors.keys() - wanted.keys()), source)
    _require_none("no keys", sorted(wanted.keys() - tensors.keys()), source)
    for name, part in wanted.items():
        if tensors[name].shape != part.shape:
            raise ConfigError(
                f"{source}: {name} has the shape {list(tensors[name].shape)}, not "
                f"{list(part.shape)}"
            )
    module.load_state_dict({name: tensors[name].to(part.dtype) for name, part in wanted.items()})


def _require_none(what: str, names: Sequence[str], source: str) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ConfigError(f"{source} has {what} {', '.join(names[:_SHOWN])}{more}")


def _pickle_beside(path: Path) -> Path | None:
    """A pickle file where the safetensors file should be."""
    near = (path.with_suffix(suffix) for suffix in _PICKLES)
    return next((file for file in near if file.is_file()), None)
