"""Files and folders that survive a power cut: written beside their place, brought to the disk, then
renamed. So each is there whole or not at all.

A folder of weights is sealed: a list of its files with size and checksum tells later whether it is
whole. Knows nothing of what the files hold."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SEAL = "files.json"
"""Name of the list of a sealed folder's files."""

_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """A text file to write, which takes the place of `path` at the end, if nothing was raised."""
    temporary = _beside(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_file(path: Path, text: str) -> None:
    """The whole file or none of it."""
    with replacing(path) as file:
        file.write(text)


def replace(source: Path, target: Path) -> None:
    """Bring a file to the disk, and give it another's place."""
    _sync(source)
    os.replace(source, target)
    _sync(target.parent)


def publish(source: Path, target: Path) -> None:
    """Seal a folder, and give it its name. Raises OSError if a folder of that name is not empty."""
    seal(source)
    os.replace(source, target)
    _sync(target.parent)


def seal(folder: Path) -> None:
    """Bring all files of a folder to the disk, and list them: but for the list itself, and for what
    a killed process left of it."""
    own = (folder / SEAL, _beside(folder / SEAL))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in own]
    listed = {str(path.relative_to(folder)): _fingerprint(path) for path in files}
    for path in files:
        _sync(path)
    write_file(folder / SEAL, json.dumps(listed, indent=1))
    for path in {path.parent for path in files}:
        _sync(path)


def is_sealed(folder: Path) -> bool:
    """Whether the folder was complete once."""
    return (folder / SEAL).exists()


def damaged_file(folder: Path) -> str | None:
    """The first file of a sealed folder that is not as it was written, or None. Reads them all. Of
    a folder that was not sealed, nothing is known: None."""
    if not is_sealed(folder):
        return None
    try:
        listed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        pairs = [(str(name), tuple(entry)) for name, entry in listed.items()]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return SEAL
    return next((name for name, entry in pairs if _found(folder / name) != entry), None)


def is_torn(path: Path) -> bool:
    """Whether a file of lines does not end with one, or holds zeros, as after a power cut."""
    content = path.read_bytes() if path.is_file() else b""
    return not content.endswith(b"\n") or b"\0" in content


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full. The libraries that
    write weights and tokenizers raise errors of their own, which quote the system's."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    quoted = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "PytorchStreamWriter")
    return any(words in str(error) for words in quoted)


def _beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f"{path.name}.partial")


def _found(path: Path) -> tuple[int, int] | None:
    return _fingerprint(path) if path.is_file() else None


def _fingerprint(path: Path) -> tuple[int, int]:
    """Size and CRC-32: against accidents, not against people."""
    checksum, size = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
    return size, checksum


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
