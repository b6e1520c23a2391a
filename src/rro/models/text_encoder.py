"""From what a template renders to token ids, piece by piece.

Knows control tokens and pieces of text, neither messages nor how a conversation is put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rro.models.control_tokens import ControlTokens
from rro.models.rendering import Piece


class TextEncoder:
    """Encodes the text of a tokenizer's chat template. `leads`: texts behind which a text is
    encoded as it is behind an end of turn."""

    def __init__(self, tokenizer: Any) -> None:
        self.control = ControlTokens(tokenizer)
        self.leads: tuple[str, ...] = ()

    def lead_with(self, end_of_turn: int) -> None:
        """Sets `leads`, once the end-of-turn token is known."""
        end = self.control.name(end_of_turn)
        spaced = self.control.adds_space(end_of_turn)
        self.leads = tuple(end + letter for letter in "\n0a.") if spaced else (end,)

    def new_text(self, pieces: Sequence[Piece], start: int = 0) -> str:
        """The text of `pieces` from `start` on, with the control tokens of the template's own text
        protected."""
        new = list[str]()
        for piece in pieces:
            own, said = piece.own[start:], piece.said[max(0, start - len(piece.own)) :]
            new += [self.control.protect(own), said]
            start = max(0, start - len(piece.own) - len(piece.said))
        return "".join(new)

    def following(self, tail: str, text: str) -> tuple[int, ...]:
        """Ids of `text` after `tail`, as if both were encoded together. Where a token would cover
        letters of both, or is split there, `text` is encoded apart, without the space that some
        tokenizers put before what they encode."""
        if not text:
            return ()
        for lead in (tail, *self.leads):
            before, both = self.control.encode(lead), self.control.encode(lead + text)
            if both[: len(before)] == before:
                return tuple(both[len(before) :])
        return tuple(self.control.encode(text))
