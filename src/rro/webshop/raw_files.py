"""WebShop's data files, read but otherwise unchanged; the products one at a time, so that the full
catalogue, 5 GB of JSON, needs no more memory than the small one.

File formats and their quirks follow web_agent_site/engine/engine.py of princeton-nlp/WebShop at
64fa2a5. Knows nothing of what the shop makes of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rro.errors import DataError, reason_of

ITEM_FILES = (
    ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    ("items_shuffle.json", "items_ins_v2.json"),
)
HUMAN_FILE, NOUN_FILE, COLOR_FILE = "items_human_ins.json", "title_nouns.json", "color_words.json"
# Characters read at a time, and the most that an entry may have.
CHUNK, LONGEST = 1 << 22, 1 << 25
# What begins, separates and ends the elements of an array.
_MARK = re.compile(r"\s*(\[\s*\]|[\[,\]])\s*")


@dataclass(frozen=True)
class RawCatalogue:
    """WebShop's files, parsed but otherwise unchanged. Dictionaries are keyed by product id
    (ASIN)."""

    products: Iterable[dict[str, Any]]
    """Entries of items_shuffle*.json, in index order."""
    attributes: dict[str, Any]
    """items_ins_v2*.json: "attributes" and, for a product with a synthetic instruction,
    "instruction" and "instruction_attributes"."""
    human: dict[str, Any]
    """items_human_ins.json: a list of "instruction", "instruction_attributes" and
    "instruction_options" for each product."""
    nouns: dict[str, list[str]]
    """Lower-cased NOUN and PROPN tokens of each title, in order."""
    colors: list[str]
    """Colour words by which the reward normalises options, in order."""


class Entries(Iterable[dict[str, Any]]):
    """The elements of the JSON array in `file`, read from it one at a time, anew by each
    iteration. An iteration raises DataError that names the file if it is damaged or of another
    form."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            with self._file.open(encoding="utf-8") as stream:
                yield from _elements(stream)
        except (OSError, ValueError) as error:
            raise _unreadable(self._file, error) from None


def _elements(stream: TextIO) -> Iterator[Any]:
    """The elements of the JSON array that a text is. Raises ValueError if it is none."""
    decode = json.JSONDecoder().raw_decode
    text, place, expected = "", 0, "["
    while True:
        mark = _MARK.match(text, place)
        if (mark and mark[1][0] not in expected) or (not mark and text[place:].strip()):
            raise ValueError(f"{expected.strip(']')!r} expected after {text[:place][-40:]!r}")
        if mark and mark[1][-1] == "]":
            break
        try:
            value, end = decode(text, mark.end() if mark else len(text))
        except ValueError as error:
            more = stream.read(CHUNK)
            if not more or len(text) - place > LONGEST:
                raise ValueError(f"{error} of {text[place:][:40]!r}") from None
            text, place = text[place:] + more, 0
            continue
        yield value
        place, expected = end, ",]"
    if text[mark.end() :] or stream.read(1):
        raise ValueError("more follows after its end")


def catalogue_files(folder: Path) -> list[Path]:
    """The files of a data folder: products, attributes, human instructions, nouns, colours.

    If the folder has both catalogues, the small one is taken. Raises DataError that names the
    missing files.
    """
    items, attributes = next(
        (pair for pair in ITEM_FILES if (folder / pair[0]).exists()), ITEM_FILES[0]
    )
    files = [folder / name for name in (items, attributes, HUMAN_FILE, NOUN_FILE, COLOR_FILE)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DataError(
            f"{folder} is not a WebShop data folder: {', '.join(missing)} missing; "
            "run rro data fetch webshop-1k (or webshop, the full catalogue)"
        )
    return files


def load_raw(folder: Path) -> RawCatalogue:
    """Read a data folder; the products are read when they are iterated. Raises DataError that names
    the file if one is missing, damaged or of another form."""
    items, *files = catalogue_files(folder)
    kinds = (dict, dict, dict, list)
    parts = (_read(file, kind) for file, kind in zip(files, kinds, strict=True))
    return RawCatalogue(Entries(items), *parts)


def _read(file: Path, kind: type) -> Any:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    if not isinstance(value, kind):
        raise DataError(
            f"{file} contains a JSON {type(value).__name__}; WebShop's file is a {kind.__name__}"
        )
    return value


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read ({reason_of(error)}): fetch it again")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each data file by name."""
    hashes = {}
    for file in catalogue_files(folder):
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
