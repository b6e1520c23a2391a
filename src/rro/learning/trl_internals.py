"""Everything in TRL and Transformers that training changes or reads although it is not public.

Read in TRL 1.16.0 and Transformers 5.23.0. All other modules use public names only. A test
compares `INTERNALS` with what is installed; a training refuses to start if one of them is gone.
Knows nothing of losses or rows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any

import trl.trainer.utils

from rro.errors import RroError

TESTED = {"trl": "1.16.0", "transformers": "5.23.0"}
_ADVICE = "Install the versions that rro is tested with: " + ", ".join(
    map("==".join, TESTED.items())
)

INTERNALS = {
    "trl.trainer.utils:_use_triton": "device",
    "trl.trainer.base_trainer:_BaseTrainer._send_telemetry": "self",
    "trl:DPOTrainer._prepare_dataset": "self dataset processing_class args dataset_name",
    "trl:DPOTrainer._precompute_ref_logps": "self dataset name batch_size",
}
"""What is used below: module, name, and the names of its parameters."""


def missing() -> list[str]:
    """Those of INTERNALS that the installed TRL does not have, in one sentence each."""
    return [
        f"TRL {version('trl')} no longer has {name}: look at learning/trl_internals.py"
        for name in INTERNALS
        if _parameters(name) is None
    ]


def changed() -> list[str]:
    """Those of INTERNALS that have other parameters now, in one sentence each."""
    return [
        f"TRL {version('trl')}: {name} takes ({found}), no longer ({parameters}): look at "
        "learning/trl_internals.py"
        for name, parameters in INTERNALS.items()
        if (found := _parameters(name)) not in (None, parameters)
    ]


def _parameters(name: str) -> str | None:
    """The names of its parameters, or None if it is not there."""
    try:
        return " ".join(inspect.signature(resolve_name(name)).parameters)
    except (ImportError, AttributeError):
        return None


@contextmanager
def adapted_trl() -> Iterator[None]:
    """Make TRL compute the vocabulary head only where there is loss, on a CPU too, inside this
    context.

    TRL decides by `_use_triton(device)`, because compiling back ends want fixed shapes. A CPU gains
    1.1 to 1.7 times. Raises RroError if one of INTERNALS is missing."""
    if problems := missing():
        raise RroError(f"{problems[0]}. {_ADVICE}")
    original = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: device.type in ("cpu", "cuda", "xpu")
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = original


class NoTelemetry:
    """Put before a TRL trainer: it sends no usage data. The public switch,
    HF_HUB_DISABLE_TELEMETRY, works only before huggingface_hub is imported."""

    def _send_telemetry(self) -> None:
        return


class TokenisedPairs:
    """Put before `DPOTrainer`: it takes rows that are tokenised already. `SFTTrainer` has a public
    switch for this, `dataset_kwargs={"skip_prepare_dataset": True}`; `DPOTrainer` has none."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class GivenReference:
    """Put before `DPOTrainer`: it takes the reference's log-probabilities from columns of the rows,
    where `precompute_ref_log_probs=True` would score all rows with the policy."""

    def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def use_one_gpu(args: Any) -> None:
    """Train on one GPU where several are visible and no launcher was used: Transformers would use
    `nn.DataParallel`, which TRL refuses, and only `_n_gpu` tells it otherwise. Raises RroError if
    that has no effect."""
    if args.n_gpu > 1:
        args._n_gpu = 1
    if args.n_gpu > 1:
        raise RroError(
            f"Transformers {version('transformers')} no longer reads TrainingArguments._n_gpu: set "
            f"CUDA_VISIBLE_DEVICES to one GPU. {_ADVICE}"
        )
