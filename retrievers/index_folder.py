"""A vector index on disk: files named by their content, and a manifest that is replaced last.

A reader finds the old index or the new one, never a mixture: a save that is cut off leaves the old
manifest with the files it names.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ragpack.digest import digest_file
from ragpack.errors import RetrievalError

__all__ = ["Manifest", "damaged", "read_manifest", "write_folder"]

_MANIFEST = "manifest.json"
_FORMAT = "ragpack-index/1"
_DIGEST = re.compile("[0-9a-f]{64}")

Writer = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index is: its encoder, FAISS factory string, number of vectors, digests of files.

    ``fingerprint`` is the encoder's digest; ``files`` maps a plain name to its BLAKE3.
    """

    encoder: str
    fingerprint: str
    factory: str
    count: int
    files: Mapping[str, str]

    def path(self, folder: Path, name: str) -> Path:
        """The file called ``name``, its bytes checked.

        Raises:
            RetrievalError: it is missing or its digest differs.
        """
        digest = self.files.get(name, "")
        path = folder / _stored_name(name, digest)
        try:
            found = digest_file(path)
        except OSError as error:
            raise damaged(folder, f"{path.name} cannot be read ({error.strerror})") from error
        if found != digest:
            raise damaged(folder, f"{path.name} has changed since it was written")
        return path


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``.

    Raises:
        RetrievalError: there is none, or it is not one of this version.
    """
    try:
        record = json.loads((folder / _MANIFEST).read_bytes())
        if record.pop("format") != _FORMAT:
            raise damaged(folder, f"{_MANIFEST} is not of the format {_FORMAT}")
        manifest = Manifest(**record)
        sound = all(_DIGEST.fullmatch(digest) for digest in manifest.files.values())
    except OSError as error:
        raise RetrievalError(
            f"no index in {folder} ({error.strerror}): make one with 'ragpack index'"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(folder, f"{_MANIFEST} cannot be understood") from error
    if not sound:
        raise damaged(folder, f"{_MANIFEST} holds a malformed digest")
    return manifest


def write_folder(folder: Path, writers: Mapping[str, Writer], **facts: Any) -> None:
    """Write each named file with its writer, then a manifest of them and of ``facts``.

    Raises:
        RetrievalError: the folder cannot be written; the index it held is as it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = _stored_names(folder)
        with TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
            files = {name: _place(Path(scratch), folder, name, writers[name]) for name in writers}
            manifest = asdict(Manifest(files=files, **facts))
            path = Path(scratch, _MANIFEST)
            path.write_text(json.dumps({"format": _FORMAT} | manifest, indent=2), encoding="utf-8")
            _to_disk(path)
            path.replace(folder / _MANIFEST)
        for name in old - _stored_names(folder):
            (folder / name).unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # FAISS raises RuntimeError where a disk is full
        raise RetrievalError(f"the index cannot be saved in {folder}: {error}") from error


def damaged(folder: Path, what: str) -> RetrievalError:
    """The error for an index whose files are not what its manifest says."""
    return RetrievalError(f"the index in {folder} is damaged: {what}; build it again")


def _stored_name(name: str, digest: str) -> str:
    path = Path(name)
    return f"{path.stem}-{digest[:16]}{path.suffix}"


def _stored_names(folder: Path) -> set[str]:
    """The files that the manifest in ``folder`` names; a broken one names none."""
    try:
        return {_stored_name(*item) for item in read_manifest(folder).files.items()}
    except RetrievalError:
        return set()


def _place(scratch: Path, folder: Path, name: str, write: Writer) -> str:
    """Write a file, move it to its stored name, return its digest."""
    path = scratch / name
    write(path)
    _to_disk(path)
    digest = digest_file(path)
    path.replace(folder / _stored_name(name, digest))
    return digest


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
