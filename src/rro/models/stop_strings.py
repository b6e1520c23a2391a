"""Stop strings: where they end an answer, in text and in tokens. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def cut(
    ids: Sequence[int], stops: Sequence[str], decode: Callable[[Sequence[int]], str]
) -> tuple[int, str] | None:
    """How many of `ids` to keep, and their text, where one of `stops` occurs in what they decode
    to; None: none does.

    The text ends before the first stop string. The ids kept are the fewest that cover the text, so
    the last one may hold the first letters of the stop string."""
    text = decode(ids)
    ends = [text.find(stop) for stop in stops if stop in text]
    if not ends:
        return None
    text = text[: min(ends)]
    return next(n for n in range(len(ids) + 1) if len(decode(ids[:n])) >= len(text)), text
