"""MySQL's utf8mb4_general_ci: comparison without case, accents and trailing spaces; its LIKE, and REGEXP."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from functools import lru_cache

import regex  # type: ignore[import-untyped,unused-ignore]

PATTERN_SECONDS = 0.5  # for one match of an agent's regular expression


@lru_cache(maxsize=65_536)
def key(text: str) -> str:
    """What a text is compared by, byte for byte."""
    return _folded(text).rstrip(" ")


def _folded(text: str) -> str:
    """Each character as its upper-case base letter; all beyond the BMP weigh the same."""
    return text.upper() if text.isascii() else "".join(map(_weight, text))


@lru_cache(maxsize=4096)
def _weight(character: str) -> str:
    if ord(character) > 0xFFFF:
        return "\ufffd"
    return unicodedata.normalize("NFD", character.upper()[0])[0].upper()[0]


def like(text: str, pattern: str, escape: str = "\\") -> bool:
    """LIKE: % is any text, _ any character. Unlike with =, trailing spaces count."""
    return _like(_folded(pattern), _folded(escape)).match(_folded(text)) is not None


@lru_cache(maxsize=1024)
def _like(pattern: str, escape: str) -> re.Pattern[str]:
    """By way of a file name's pattern, whose expression never goes back over what it has matched."""
    parts = re.findall(rf"{re.escape(escape)}.|.", pattern, re.DOTALL) if escape else list(pattern)
    wild = {"%": "*", "_": "?"}
    globbed = (wild.get(part) or ("[" + part[-1] + "]" if part[-1] in "*?[" else part[-1]) for part in parts)
    return re.compile(fnmatch.translate("".join(globbed)))


def search(text: str, pattern: str) -> bool:
    """REGEXP. Raises regex.error for a bad pattern, TimeoutError for one that takes too long."""
    return _compiled(pattern).search(text, timeout=PATTERN_SECONDS) is not None


def replace(text: str, pattern: str, replacement: str) -> str:
    """REGEXP_REPLACE. Raises as `search` does."""
    return str(_compiled(pattern).sub(lambda _: replacement, text, timeout=PATTERN_SECONDS))


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern, regex.VERSION0 | regex.IGNORECASE)
