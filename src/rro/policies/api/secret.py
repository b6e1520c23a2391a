"""Our key, recognised in whatever a server answers. Knows text, neither HTTP nor models."""

from __future__ import annotations

import re
from base64 import b64encode
from html import unescape
from unicodedata import normalize
from urllib.parse import unquote

# letters and digits: of a shorter key, other text could hold as many by chance
_WINDOW = 12


class Secret:
    """A key ("": none). It is recognised in any case, with other characters between its letters,
    backwards, in base64, hexadecimal digits, percent and HTML notation, and by its parts."""

    def __init__(self, key: str) -> None:
        self._key, parts = key, set[str]()
        for form in map(_letters, _forms(key)) if len(_letters(key)) >= _WINDOW else ():
            starts = [*range(0, len(form) - _WINDOW + 1, _WINDOW), len(form) - _WINDOW]
            parts |= {form[start : start + _WINDOW] for start in starts}
        self._parts = re.compile("|".join(map(re.escape, sorted(parts))) or r"(?!)")

    def __bool__(self) -> bool:
        return bool(self._key)

    def inside(self, text: str) -> bool:
        """Whether `text` holds the key. Placeholders of keys, such as "EMPTY", are no secret."""
        shown = unescape(unquote(unquote(text)))
        return any(self._parts.search(_letters(form)) for form in {text, shown})

    def clean(self, text: str) -> str:
        """A server's message as one short line without the key."""
        text = " ".join(text.split())
        text = text.replace(self._key, "[key]") if self._key else text
        return "[a message that holds our key]" if self.inside(text) else text[:300]


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", normalize("NFKC", text)).lower()


def _forms(key: str) -> list[str]:
    """The key in the notations that servers may use; in base64 by where it begins, without the
    letters that depend on what stands around it."""
    data = key.encode()
    coded = [b64encode(b"\0" * shift + data).decode().rstrip("=") for shift in range(3)]
    inner = [text[start:-1] for text, start in zip(coded, (0, 2, 3), strict=True)]
    return [key, key[::-1], data.hex(), *inner]
