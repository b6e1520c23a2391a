"""Where each setting of a recipe was written: the line of a TOML file, or an override.

Reads only as much TOML as it takes to find the keys: the text has been parsed before.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field

Path = tuple[str, ...]
"""A dotted key as its parts; the items of a list are "0", "1", ..."""

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_KEY = re.compile(r"""\s*(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([\w-]+))\s*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[^,\]}#\n]*")


@dataclass
class Origins:
    """Who wrote which setting. `where` names the source as a whole, e.g. the recipe's file."""

    where: str
    lines: dict[Path, int] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)

    def override(self, path: Path, text: str) -> None:
        """A setting, with all below it, now comes from an override."""
        for places in (self.lines, self.overrides):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
        self.overrides[path] = text

    def move(self, old: Path, new: Path) -> None:
        """A setting was written under its old key."""
        for places in (self.lines, self.overrides):
            if old in places:
                places.setdefault(new, places[old])  # type: ignore[arg-type]

    def of(self, path: Path, *, secret: bool = False) -> str:
        """The place where a setting, something in it, or the nearest table around it was written.
        A `secret` override is named by its key."""
        override, line = self._find(path)
        if override:
            return f"override {override.partition('=')[0] if secret else override}"
        return f"{self.where}:{line}" if line else self.where

    def order(self, path: Path) -> tuple[bool, int]:
        """Sorts settings as they were written: the file's by line, then overrides as typed."""
        override, line = self._find(path)
        typed = list(dict.fromkeys(self.overrides.values()))
        return override is not None, typed.index(override) if override else line

    def names(self, path: Path) -> bool:
        """Whether the place of this setting already tells its key: an override of just that."""
        override, _ = self._find(path)
        return override is not None and override.partition("=")[0].strip() == ".".join(path)

    def _find(self, path: Path) -> tuple[str | None, int]:
        """The override, or else the line; 0: the source as a whole."""
        inside = [known for known in self.overrides if known[: len(path)] == path]
        if path and inside:
            path = inside[0]
        for length in range(len(path), 0, -1):
            if override := self.overrides.get(path[:length]):
                return override, 0
            if line := self.lines.get(path[:length]):
                return None, line
        return None, 0


def key_lines(text: str) -> dict[Path, int]:
    """The line of each key and table header in a valid TOML text, counted from 1."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    """Walks over the text; `position` is what comes next."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text.replace("\r\n", "\n"), 0
        self.lines: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while self._skip_blank() < len(self.text):
            if self.text[self.position] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        repeated = self.text.startswith("[[", self.position)
        self.position += 2 if repeated else 1
        table = self._key(())
        if repeated:
            number = 0
            while (*table, str(number)) in self.lines:
                number += 1
            table = (*table, str(number))
            self._note(table)
        self.position += 2 if repeated else 1
        return table

    def _pair(self, table: Path) -> None:
        path = self._key(table)
        self.position += 1  # the equals sign
        self._value(path)

    def _key(self, table: Path) -> Path:
        """Read a dotted key; each of its parts is noted."""
        path = table
        while match := _KEY.match(self.text, self.position):
            quoted, literal, bare = match.groups()
            path = (*path, _unquoted(quoted) if quoted is not None else literal or bare or "")
            self._note(path)
            self.position = match.end()
            if self.text[self.position : self.position + 1] != ".":
                return path
            self.position += 1
        raise ValueError(f"no key at character {self.position}")

    def _value(self, path: Path) -> None:
        self._skip_blank()
        opening = self.text[self.position]
        if opening == "{":
            self._items("}", lambda _: self._pair(path))
        elif opening == "[":
            self._items("]", lambda number: self._item((*path, str(number))))
        elif string := _STRING.match(self.text, self.position):
            self.position = string.end()
        elif bare := _BARE.match(self.text, self.position):
            self.position = bare.end()

    def _items(self, closing: str, read: Callable[[int], None]) -> None:
        """What stands between brackets, separated by commas."""
        self.position += 1
        number = 0
        while self.text[self._skip_blank()] != closing:
            read(number)
            number += 1
            if self.text[self._skip_blank()] == ",":
                self.position += 1
        self.position += 1

    def _item(self, path: Path) -> None:
        self._note(path)
        self._value(path)

    def _note(self, path: Path) -> None:
        line = self.text.count("\n", 0, self._after_blank()) + 1
        self.lines.setdefault(path, line)

    def _after_blank(self) -> int:
        match = _BLANK.match(self.text, self.position)
        return match.end() if match else self.position

    def _skip_blank(self) -> int:
        self.position = self._after_blank()
        return self.position


def _unquoted(text: str) -> str:
    return str(tomllib.loads(f'key = "{text}"')["key"])
