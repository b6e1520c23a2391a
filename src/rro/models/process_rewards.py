"""A process reward model: a language model with a head that says what an action is worth
(Transformers' own token classification, one label), read at the action's last token.

Does not know where labels come from (rro.learning.reward_model)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForTokenClassification, AutoTokenizer

from rro.codec import from_plain
from rro.config import ModelConfig
from rro.errors import DataError, describe
from rro.files import SEAL, damaged_file, is_sealed, write_file
from rro.models.chat import ChatFormat
from rro.models.loading import load_model, no_progress_bars, resolve_device
from rro.types import Message

FILE = "process_rewards.json"
"""Beside the weights: a `Scale`, and what was measured."""
_AGAIN = "train one with rro train-prm"


@dataclass(frozen=True, slots=True)
class Scale:
    """How the head's number becomes a process reward: lowest + width * sigmoid(slope * x + offset),
    and how far it can be trusted: `error`, the mean squared error on tasks that it did not learn
    from, and `noise`, the variance of a single outcome after an action."""

    lowest: float
    width: float
    slope: float
    offset: float
    error: float
    noise: float

    @property
    def weight(self) -> float:
        """How many outcomes the model is worth: as many as have the same error. 0: it says no more
        than nothing at all."""
        return self.noise / self.error if self.error > 0 else 0.0

    def value(self, score: float | Tensor) -> Any:
        """The process reward of a number of the head."""
        scaled = torch.as_tensor(score) * self.slope + self.offset
        return self.lowest + self.width * torch.sigmoid(scaled)


class ProcessRewardModel:
    """Scores actions. `chat` encodes conversations as the policy does."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.chat = ChatFormat(tokenizer)

    @classmethod
    def on(cls, config: ModelConfig, checkpoint: Path | None) -> ProcessRewardModel:
        """A policy's weights, as `load_model` finds them, with a new head. Raises UsageError where
        there are none."""
        wanted = config.model_copy(update={"dtype": "float32"})
        policy, tokenizer = load_model(wanted, checkpoint, train=False)
        settings = deepcopy(policy.config)
        settings.num_labels = 1
        with torch.device("meta"):  # the head alone is new
            model = AutoModelForTokenClassification.from_config(settings)
        setattr(model, model.base_model_prefix, policy.base_model)
        found = cls(model, tokenizer)
        found.head.to_empty(device=policy.device).reset_parameters()
        return found

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> ProcessRewardModel:
        """The model that `save` wrote. Raises DataError where the folder has none that can be
        loaded."""
        try:
            with no_progress_bars():
                model, found = AutoModelForTokenClassification.from_pretrained(
                    folder, dtype=torch.float32, output_loading_info=True
                )
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # of whichever file is damaged
            problem = f"{folder}: its process reward model cannot be loaded ({describe(error)})"
            raise DataError(f"{problem}; {_AGAIN}") from error
        if missing := [*found["missing_keys"], *found["mismatched_keys"]]:
            raise DataError(f"{folder}: the weights lack {missing[0]}; {_AGAIN}")
        return cls(model.to(resolve_device(device)), tokenizer)

    @property
    def head(self) -> Any:
        """The linear layer."""
        return next(part for part in self.model.children() if isinstance(part, torch.nn.Linear))

    def encode(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], list[int]]:
        """A conversation's token ids, and where each assistant message has its last one."""
        ids = self.chat.encode(messages, add_generation_prompt=False).ids
        places = [
            len(self.chat.encode(messages[: number + 1], add_generation_prompt=False).ids) - 1
            for number, message in enumerate(messages)
            if message.role == "assistant"
        ]
        return tuple(ids), places

    def features(self, messages: Sequence[Message]) -> Tensor:
        """What the head sees at the last token of each assistant message: shape (messages,
        width)."""
        ids, places = self.encode(messages)
        with torch.inference_mode():
            inputs = torch.tensor([ids], device=self.model.device)
            hidden: Tensor = self.model.base_model(input_ids=inputs).last_hidden_state
            return hidden[0, places].float().cpu()

    def scores(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[float, int]]:
        """In one forward pass, of each conversation: the head's number for its last message, an
        assistant's, and how many tokens it has."""
        every = [self.chat.encode(one, add_generation_prompt=False).ids for one in conversations]
        # Padding comes after all that a token sees, so it changes nothing.
        inputs = pad_sequence([torch.tensor(ids) for ids in every], batch_first=True)
        last = [len(ids) - 1 for ids in every]
        with torch.inference_mode():
            hidden = self.model.base_model(input_ids=inputs.to(self.model.device))
            states = hidden.last_hidden_state[range(len(every)), last]
            numbers = self.head(states)[:, 0].tolist()
        return [(number, len(ids)) for number, ids in zip(numbers, every, strict=True)]

    def save(self, folder: Path, scale: Scale, measured: dict[str, Any]) -> None:
        """Write weights, tokenizer, scale and what was measured."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        record = {"scale": asdict(scale), "measured": measured}
        write_file(folder / FILE, json.dumps(record, indent=1) + "\n")


def read_scale(folder: Path) -> Scale:
    """The scale of a trained process reward model. Raises DataError where there is none, or where
    a file of the model is no longer as it was written."""
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"{folder}: no process reward model there; {_AGAIN}")
    if damaged := damaged_file(folder):
        raise DataError(f"{folder / damaged} is not as it was written; {_AGAIN}")
    try:
        scale = from_plain(Scale, json.loads(file.read_text(encoding="utf-8"))["scale"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{file} is damaged; {_AGAIN}") from None
    numbers = asdict(scale).values()
    if not all(map(isfinite, numbers)) or min(scale.width, scale.error, scale.noise) < 0:
        raise DataError(f"{file}: the scale has a number that cannot be one; {_AGAIN}")
    return scale


def identity(folder: Path) -> str:
    """Tells one trained model from another: a hash of the checksums of its files."""
    listed = folder / SEAL if is_sealed(folder) else folder / FILE
    return hashlib.sha256(listed.read_bytes()).hexdigest()[:16]
