"""Plain data to compact text and back: each text of a chunk once, then JSON, deflate and base64.

Base64 has no character that means anything to HTML or JavaScript, so data can stand in a page as it
is, whatever it says."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

CHUNK_CHARACTERS = 250_000  # of distinct text; one chunk is decoded when one of its tasks is opened


class Chunk:
    """Tasks that share a table of strings."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._tasks: list[dict[str, Any]] = []
        self._characters = 0

    def intern(self, text: str) -> int:
        """The text's number in the table."""
        if text not in self._numbers:
            self._numbers[text] = len(self._numbers)
            self._characters += len(text)
        return self._numbers[text]

    def add(self, task: dict[str, Any]) -> int:
        """Its place in the chunk."""
        self._tasks.append(task)
        return len(self._tasks) - 1

    @property
    def is_full(self) -> bool:
        return self._characters > CHUNK_CHARACTERS

    @property
    def is_empty(self) -> bool:
        return not self._tasks

    def packed(self) -> str:
        return pack({"strings": list(self._numbers), "tasks": self._tasks})


def pack(data: Any) -> str:
    """Base64 of deflated JSON. Raises ValueError for a number that JSON has not: the page could not
    read it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpack(text: str) -> Any:
    """What was packed; the page does the same."""
    return json.loads(zlib.decompress(base64.b64decode(text)))
