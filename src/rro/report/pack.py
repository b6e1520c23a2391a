"""Plain data to compact text and back: each text of a chunk once, then JSON, deflate and base64.

Base64 has no character with a meaning in HTML or JavaScript, so any data can be embedded in a page.
Knows nothing of what the data is."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

# Of distinct text. A whole chunk is decoded when one of its tasks is opened.
CHUNK_CHARACTERS = 250_000


class Chunk:
    """Tasks that share a table of strings."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._tasks: list[dict[str, Any]] = []
        self._characters = 0

    def intern(self, text: str) -> int:
        """The text's number in the table of strings."""
        if text not in self._numbers:
            self._numbers[text] = len(self._numbers)
            self._characters += len(text)
        return self._numbers[text]

    def add(self, task: dict[str, Any]) -> int:
        """Add a task; returns its place in the chunk."""
        self._tasks.append(task)
        return len(self._tasks) - 1

    @property
    def is_full(self) -> bool:
        """Whether the next task belongs in another chunk."""
        return self._characters > CHUNK_CHARACTERS

    @property
    def is_empty(self) -> bool:
        """Whether the chunk has no task."""
        return not self._tasks

    def packed(self) -> str:
        """The chunk as compact text."""
        return pack({"strings": list(self._numbers), "tasks": self._tasks})


class Chunks:
    """Tasks in chunks that are closed when they are full."""

    def __init__(self) -> None:
        self._done, self._chunk = list[str](), Chunk()

    def intern(self, text: str) -> int:
        """The text's number in the table of strings that the next task goes with."""
        return self._chunk.intern(text)

    def add(self, task: dict[str, Any]) -> dict[str, Any]:
        """Add a task; returns the name of its `chunk`, and its `place` there."""
        at = {"chunk": str(len(self._done)), "place": self._chunk.add(task)}
        if self._chunk.is_full:
            self._done.append(self._chunk.packed())
            self._chunk = Chunk()
        return at

    def packed(self) -> list[str]:
        """All of them as compact texts."""
        return self._done if self._chunk.is_empty else [*self._done, self._chunk.packed()]


def pack(data: Any) -> str:
    """Base64 of deflated JSON. Raises ValueError for a number that JSON cannot hold (NaN,
    infinity): the page could not read it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpack(text: str) -> Any:
    """The data that `pack` was given; the page does the same."""
    return json.loads(zlib.decompress(base64.b64decode(text)))
