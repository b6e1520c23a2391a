"""MySQL's functions of texts, and those that compare values by collation, as SQLite calls them
back. ValueError means NULL. Knows nothing of the tree.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Any

from rro.intercode_sql.embedded.functions import folded, key
from rro.intercode_sql.embedded.numeric import fixed, whole
from rro.intercode_sql.embedded.work import MAX_TEXT


def _limited(size: int) -> None:
    if size > MAX_TEXT:
        raise ValueError(size)


def _repeat(text: str, count: int) -> str:
    _limited(len(text) * max(0, count))
    return text * max(0, count)


def _padded(left: bool, text: str, size: int, fill: str) -> str:
    _limited(size)
    if size < 0 or (not fill and size > len(text)):
        raise ValueError(size)
    missing = (fill * (size // max(1, len(fill)) + 1))[: max(0, size - len(text))]
    return missing + text[:size] if left else text[:size] + missing


def _replace(text: str, old: str, new: str) -> str:
    if not old:
        return text
    _limited(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new)


def _insert(text: str, start: int, size: int, new: str) -> str:
    if not 1 <= start <= len(text):
        return text
    size = size if 0 <= size <= len(text) else len(text)
    return text[: start - 1] + new + text[start - 1 + size :]


def _substring(text: str, start: int, size: int | None = None) -> str:
    start = start - 1 if start > 0 else len(text) + start if start else -1
    if start < 0 or (size is not None and size <= 0):
        return ""
    return text[start:] if size is None else text[start : start + size]


def _trimmed(text: str, piece: str = " ", side: str = "BOTH") -> str:
    if not piece:
        return text
    start, end, size = 0, len(text), len(piece)
    while side != "TRAILING" and text.startswith(piece, start, end):
        start += size
    while side != "LEADING" and end - size >= start and text.endswith(piece, start, end):
        end -= size
    return text[start:end]


def _substring_index(text: str, piece: str, count: int) -> str:
    if not piece or not count:
        return ""
    parts = text.split(piece)
    return piece.join(parts[:count] if count > 0 else parts[count:])


def _locate(piece: str, text: str, start: int = 1) -> int:
    """The place of a piece. Unlike with =, a letter with an accent is not one without."""
    if not 1 <= start <= len(text) + 1:
        return 0
    folds, size, place = folded(text), len(piece.encode()), start - 1
    while (place := folds.find(folded(piece), place)) >= 0:
        if len(text[place : place + len(piece)].encode()) == size:
            return place + 1
        place += 1
    return 0


def _key(value: Any) -> Any:
    return key(value) if isinstance(value, str) else value


def same(one: Any, other: Any) -> bool:
    """Whether two values in a common form are equal: texts by collation."""
    return bool(_key(one) == _key(other))


def _extreme(choose: Callable[..., Any], *values: Any) -> Any:
    return choose(values, key=_key)


def _field(value: Any, *others: Any) -> int:
    if value is None:
        return 0
    return next(
        (n for n, other in enumerate(others, 1) if other is not None and same(value, other)), 0
    )


def _interval(value: Any, *bounds: Any) -> int:
    if value is None:
        return -1
    return next(
        (n for n, bound in enumerate(bounds) if bound is not None and value < bound), len(bounds)
    )


def _find_in_set(piece: str, items: str) -> int:
    keys = [_key(item) for item in items.split(",")] if items else []
    return keys.index(_key(piece)) + 1 if _key(piece) in keys and "," not in piece else 0


def _concat_ws(joint: Any, *texts: Any) -> Any:
    return None if joint is None else str(joint).join(text for text in texts if text is not None)


def _elt(number: Any, *texts: Any) -> Any:
    return texts[number - 1] if number is not None and 1 <= number <= len(texts) else None


def _make_set(number: Any, *texts: Any) -> Any:
    if number is None:
        return None
    return ",".join(text for n, text in enumerate(texts) if number >> n & 1 and text is not None)


def _export_set(number: int, on: str, off: str, joint: str = ",", count: int = 64) -> str:
    return joint.join(on if number >> n & 1 else off for n in range(max(0, min(count, 64))))


def _soundex(text: str) -> str:
    codes = {
        letter: code
        for code, letters in enumerate(("AEIOUYHW", "BFPV", "CGJKQSXZ", "DT", "L", "MN", "R"))
        for letter in letters
    }
    letters = [letter for letter in text.upper() if letter.isalpha()]
    if not letters:
        return ""
    found, last = letters[0], codes.get(letters[0], 0)
    for letter in letters[1:]:
        code = codes.get(letter, 0)
        if letter not in "AEIOUYHW" and code != last:
            found += str(code)
        if code:
            last = code
    return found.ljust(4, "0")


def _conv(text: str, base: int, to: int) -> str:
    if not (2 <= abs(base) <= 36 and 2 <= abs(to) <= 36):
        raise ValueError(base)
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    match = re.match(rf"\s*(-?)([{digits[: abs(base)]}]+)", text.upper())
    number = int(match[1] + match[2], abs(base)) if match else 0
    sign = "-" if number < 0 and to < 0 else ""
    number, result = abs(number) if to < 0 else number & (2**64 - 1), ""
    while number:
        number, digit = divmod(number, abs(to))
        result = digits[digit] + result
    return sign + (result or "0")


def _hex(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{whole(value) & (2**64 - 1):X}"
    return (value if isinstance(value, bytes) else value.encode()).hex().upper()


def _format(value: float, places: int, locale: str = "en_US") -> str:
    text = f"{fixed(value, max(0, min(places, 30))):,f}"
    return text.translate(str.maketrans(",.", ".,")) if locale.startswith("de") else text


def _quote(text: str) -> str:
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


def _sha2(text: str, size: int) -> str:
    return hashlib.new(f"sha{size or 256}", text.encode()).hexdigest()


def _inet_aton(text: str) -> int:
    parts = [int(part) for part in text.split(".")]
    if len(parts) != 4 or max(parts) > 255:
        raise ValueError(text)
    return sum(part << 8 * (3 - n) for n, part in enumerate(parts))


def char(*codes: Any) -> bytes:
    """CHAR."""
    numbers = [code & 0xFFFFFFFF for code in codes if code is not None]
    return b"".join(code.to_bytes(max(1, (code.bit_length() + 7) // 8), "big") for code in numbers)


TEXTS: dict[str, Callable[..., Any]] = {
    "concat": lambda *texts: "".join(texts),
    "concat_ws": _concat_ws,
    "left": lambda text, size: text[: max(0, size)],
    "right": lambda text, size: text[max(0, len(text) - size) :] if size > 0 else "",
    "substring": _substring,
    "substr": _substring,
    "mid": _substring,
    "lower": str.lower,
    "lcase": str.lower,
    "upper": lambda text: "".join(c.upper() if len(c.upper()) == 1 else c for c in text),
    "ltrim": lambda text: text.lstrip(" "),
    "rtrim": lambda text: text.rstrip(" "),
    "trim": _trimmed,
    "lpad": lambda *values: _padded(True, *values),
    "rpad": lambda *values: _padded(False, *values),
    "repeat": _repeat,
    "space": lambda size: _repeat(" ", size),
    "reverse": lambda text: text[::-1],
    "replace": _replace,
    "insert": _insert,
    "length": lambda text: len(text.encode()),
    "bit_length": lambda text: 8 * len(text.encode()),
    "char_length": len,
    "ascii": lambda text: text.encode()[0] if text else 0,
    "ord": lambda text: int.from_bytes(text[:1].encode(), "big"),
    "locate": _locate,
    "instr": lambda text, piece: _locate(piece, text),
    "substring_index": _substring_index,
    "field": _field,
    "find_in_set": _find_in_set,
    "elt": _elt,
    "make_set": _make_set,
    "export_set": _export_set,
    "quote": _quote,
    "soundex": _soundex,
    "strcmp": lambda one, other: (_key(one) > _key(other)) - (_key(one) < _key(other)),
    "md5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
    "sha": lambda text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
    "sha2": _sha2,
    "crc32": lambda text: zlib.crc32(text.encode()),
    "to_base64": lambda text: base64.b64encode(text.encode()).decode(),
    "from_base64": lambda text: base64.b64decode(text, validate=True),
    "unhex": lambda text: bytes.fromhex(text.zfill(len(text) + len(text) % 2)),
    "hex": _hex,
    "conv": _conv,
    "bin": lambda text: _conv(text, 10, 2),
    "oct": lambda text: _conv(text, 10, 8),
    "format": _format,
    "char": char,
    "inet_aton": _inet_aton,
    "inet_ntoa": lambda number: ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)),
    "greatest": lambda *values: _extreme(max, *values),
    "least": lambda *values: _extreme(min, *values),
    "interval": _interval,
    "isnull": lambda value: value is None,
    "same": same,
    "any_value": lambda value: value,
    "nullif": lambda value, one, other: (
        None if one is not None and other is not None and same(one, other) else value
    ),
    "version": lambda: "9.7.0",
    "charset": lambda text: "utf8mb4",
    "collation": lambda text: "utf8mb4_general_ci",
    "coercibility": lambda text: 4,
}
TEXTS |= {"octet_length": TEXTS["length"], "character_length": len, "sha1": TEXTS["sha"]}
TEXTS |= {"ucase": TEXTS["upper"]}
