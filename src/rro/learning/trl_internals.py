"""Everything in TRL and Transformers that training changes or reads although it is not public.

Read in TRL 1.16.0 and Transformers 5.23.0. All other modules use public names only. A test
compares `INTERNALS` with what is installed; a training refuses to start if one of them is gone.
Knows nothing of losses or rows."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import trl.trainer.utils

from rro.errors import RroError

TESTED = {"trl": "1.16.0", "transformers": "5.23.0"}

INTERNALS = {
    ("trl.trainer.utils", "_use_triton"): ("device",),
    ("trl.trainer.dpo_trainer", "DPOTrainer._prepare_dataset"): (
        "self", "dataset", "processing_class", "args", "dataset_name"
    ),
    ("trl.trainer.dpo_trainer", "DPOTrainer._precompute_ref_logps"): (
        "self", "dataset", "name", "batch_size"
    ),
    ("trl.trainer.base_trainer", "_BaseTrainer._send_telemetry"): ("self",),
    ("transformers", "TrainingArguments._setup_devices"): ("self",),
}  # fmt: skip
"""Module and name of what is used below, with its parameters."""


def missing() -> list[str]:
    """One sentence for each of INTERNALS that is not there."""
    return [
        f"{_installed(module)} no longer has {module}.{name}: look at learning/trl_internals.py"
        for module, name in INTERNALS
        if _look_up(module, name) is None
    ]


def changed() -> list[str]:
    """One sentence for each of INTERNALS that has other parameters than those listed."""
    return [
        f"{_installed(module)}: {module}.{name} has the parameters {found}, no longer {parameters}: "
        "look at learning/trl_internals.py"
        for (module, name), parameters in INTERNALS.items()
        if (internal := _look_up(module, name)) is not None
        and (found := tuple(inspect.signature(internal).parameters)) != parameters
    ]


@contextmanager
def adapted_trl() -> Iterator[None]:
    """Make TRL compute the vocabulary head only where there is loss, on a CPU too, inside this
    context.

    TRL decides by `_use_triton(device)`, because compiling back ends want fixed shapes. A CPU gains
    1.1 to 1.7 times. Raises RroError if one of INTERNALS is missing."""
    if problems := missing():
        raise RroError(f"{problems[0]}. {_tested()}")
    original = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: device.type in ("cpu", "cuda", "xpu")
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = original


class NoTelemetry:
    """Put before a TRL trainer: it sends no usage data.

    The public switch, HF_HUB_DISABLE_TELEMETRY, is read when huggingface_hub is imported, which
    may be before this package is."""

    def _send_telemetry(self) -> None:
        return


class TokenisedPairs:
    """Put before `DPOTrainer`: it takes rows that are tokenised already.

    `_prepare_dataset` renders and tokenises text. `SFTTrainer` has a public switch for this,
    `dataset_kwargs={"skip_prepare_dataset": True}`; `DPOTrainer` has none."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class GivenReference:
    """Put before `DPOTrainer`: it takes the reference's log-probabilities from columns of the rows.

    `precompute_ref_log_probs=True` keeps the reference model out of memory, but then
    `_precompute_ref_logps` would score all rows with the policy."""

    def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def use_one_gpu(args: Any) -> None:
    """Train on one GPU where several are visible and no launcher was used.

    Transformers would use `nn.DataParallel`, which TRL refuses; only `_n_gpu` tells it otherwise,
    short of hiding the other GPUs before CUDA starts. Raises RroError if that has no effect."""
    if args.n_gpu > 1:
        args._n_gpu = 1
    if args.n_gpu > 1:
        raise RroError(
            f"{_installed('transformers')} no longer reads TrainingArguments._n_gpu: set "
            f"CUDA_VISIBLE_DEVICES to one GPU. {_tested()}"
        )


def _look_up(module: str, name: str) -> Any:
    """The object, or None. What a property computes is looked at as a function."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None)
    return getattr(found, "fget", None) or getattr(found, "func", found)


def _installed(module: str) -> str:
    package = module.partition(".")[0]
    names = {"trl": "TRL", "transformers": "Transformers"}
    return f"{names[package]} {version(package)}"


def _tested() -> str:
    return (
        f"rro is tested with TRL {TESTED['trl']} and Transformers {TESTED['transformers']}: install "
        "those versions"
    )
