"""The control tokens of a tokenizer, and text that cannot become one.

A control token opens or ends a turn. It comes from the chat template's own text alone, never from a
message, whatever the tokenizer says of it: many role tokens are merely added, not `special`. So
text is encoded by a copy of the tokenizer in which control tokens have other names, and only the
template's own text is given these names. Knows tokenizers, neither templates nor messages."""

from __future__ import annotations

import json
import re
import secrets
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer


class ControlTokens:
    """The control tokens of `tokenizer`: its special ones, and all added ones except white space
    and the texts that `tokenizer.init_kwargs["text_tokens"]` lists. `ids` are theirs, `special` are
    those that the tokenizer itself calls special."""

    def __init__(self, tokenizer: Any) -> None:
        added = {id_: str(token) for id_, token in tokenizer.added_tokens_decoder.items()}
        flagged = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        ordinary = set(tokenizer.init_kwargs.get("text_tokens") or ())
        self.special = frozenset(flagged | set(tokenizer.all_special_ids))
        self.ids = self.special | {
            id_ for id_, text in added.items() if text.strip() and text not in ordinary
        }
        # No text can hold the new names, because nobody can know them: they are drawn here.
        key = secrets.token_hex(8)
        self.texts = {added[id_]: id_ for id_ in self.ids if id_ in added}
        self._names = {text: f"\ue000{key}.{id_}\ue001" for text, id_ in self.texts.items()}
        self._name = re.compile(f"\ue000{key}\\.(\\d+)\ue001")
        longest_first = sorted(self._names, key=len, reverse=True)
        self._own = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.protect = lru_cache(maxsize=1024)(self._protect)
        fast, self._slow = tokenizer.is_fast, tokenizer
        self._fast = _renamed(tokenizer.backend_tokenizer, self._names) if fast else None

    def _protect(self, text: str) -> str:
        """The template's own text, ready for `encode`: control tokens by their new names."""
        return self._own.sub(lambda match: self._names[match[0]], text)

    def name(self, id_: int) -> str:
        """The new name of a control token."""
        return next(self._names[text] for text, known in self.texts.items() if known == id_)

    def tail(self, protected: str) -> str:
        """What follows the last control token, with that token in front."""
        starts = [match.start() for match in self._name.finditer(protected)]
        return protected[starts[-1] :] if starts else protected

    def encode(self, protected: str) -> list[int]:
        """Ids of text: messages as they are, the template's own text by `protect`."""
        if self._fast is not None:
            return list(self._fast.encode(protected, add_special_tokens=False).ids)
        ids: list[int] = []
        for number, part in enumerate(self._name.split(protected)):
            if number % 2:
                ids.append(int(part))
            elif part:
                tokens = self._slow.tokenize(part, split_special_tokens=True)
                ids += self._slow.convert_tokens_to_ids(tokens)
        return ids

    def adds_space(self, id_: int) -> bool:
        """Whether the tokenizer puts a space before text that follows the control token `id_`, as
        old SentencePiece tokenizers do."""
        if self._fast is None:
            tokens = self._slow.tokenize("x", split_special_tokens=True)
        else:
            tokens = self._fast.encode(self.name(id_) + "x", add_special_tokens=False).tokens[1:]
        return bool(tokens) and tokens[0][0] in "\u2581\u0120"


def _renamed(backend: Tokenizer, names: dict[str, str]) -> Tokenizer:
    """A copy of a tokenizer in which tokens have other names but the same ids: no text is matched
    with them, neither as a whole nor by merges or pieces of the vocabulary."""
    tree = json.loads(backend.to_str())
    tree |= {"truncation": None, "padding": None, "post_processor": None}
    for token in tree["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "normalized": False, "single_word": False}
    model = tree["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {names.get(text, text): id_ for text, id_ in vocabulary.items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [
            pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))
        ]
    return Tokenizer.from_str(json.dumps(tree))
