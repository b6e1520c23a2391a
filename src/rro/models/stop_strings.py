"""Stop strings: where they end an answer, in text and in tokens. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def cut_at_stop(
    ids: Sequence[int], stops: Sequence[str], decode: Callable[[Sequence[int]], str]
) -> tuple[int, str] | None:
    """How many of `ids` to keep, and their text, if what they decode to contains one of `stops`;
    None if it contains none.

    The text ends before the first stop string. The kept ids are the fewest that cover the text, so
    the last one may hold the first letters of the stop string."""
    text = decode(ids)
    ends = [text.find(stop) for stop in stops if stop in text]
    if not ends:
        return None
    text = text[: min(ends)]
    return next(n for n in range(len(ids) + 1) if len(decode(ids[:n])) >= len(text)), text
