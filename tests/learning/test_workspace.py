"""The folders of a training: complete or absent, resumable, never silently another training's."""

import errno
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from safetensors import SafetensorError

from rro.errors import RroError, UsageError
from rro.learning.loop import clear_errors, refuse_sharded
from rro.learning.workspace import Workspace


def checkpoint(work, step, state='{"global_step": 1}'):
    folder = work.partial / f"checkpoint-{step}"
    folder.mkdir()
    if state is not None:
        (folder / "trainer_state.json").write_text(state, encoding="utf-8")
    return folder


def test_last_checkpoint_is_the_newest_complete_one(tmp_path):
    work = Workspace(tmp_path / "out", "a")
    assert work.last_checkpoint() is None
    checkpoint(work, 9)
    newest = checkpoint(work, 10)
    # Killed before the state was written, and in the middle of it.
    checkpoint(work, 11, state=None)
    checkpoint(work, 12, state='{"global_st')
    assert work.last_checkpoint() == newest


def test_output_that_exists_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    # An empty folder is accepted.
    Workspace(tmp_path / "out", "a")
    (tmp_path / "out" / "weights").touch()
    with pytest.raises(UsageError, match="out exists already"):
        Workspace(tmp_path / "out", "a")


def test_unfinished_training_of_something_else_is_refused(tmp_path):
    Workspace(tmp_path / "out", "a")
    Workspace(tmp_path / "out", "a")
    with pytest.raises(UsageError, match="unfinished training with other rows or settings"):
        Workspace(tmp_path / "out", "b")


def test_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"out\.partial cannot be created: Not a directory"):
        Workspace(tmp_path / "file" / "out", "a")


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is probably full"),
        (
            SafetensorError("I/O error: No space left on device (os error 28)"),
            "the disk is probably full",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            "the disk is probably full",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), r"lower dpo\.micro_batch"),
    ],
)
def test_full_disk_and_full_memory_are_named_with_the_fix(tmp_path, raised, sentence):
    with (
        pytest.raises(RroError, match=sentence),
        clear_errors("dpo", Workspace(tmp_path / "out", "a")),
    ):
        raise raised


def test_other_errors_pass(tmp_path):
    with (
        pytest.raises(RuntimeError, match="shapes"),
        clear_errors("dpo", Workspace(tmp_path / "out", "a")),
    ):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("kind", "stage", "refused"),
    [("FSDP", None, "FSDP"), ("DEEPSPEED", 3, "ZeRO stage 3"), ("DEEPSPEED", 2, None)],
)
def test_weights_that_no_process_has_whole_are_refused(kind, stage, refused):
    plugin = stage and SimpleNamespace(zero_stage=stage)
    state = SimpleNamespace(deepspeed_plugin=plugin)
    accelerator = SimpleNamespace(distributed_type=DistributedType[kind], state=state)
    if refused is None:
        refuse_sharded(accelerator)
        return
    with pytest.raises(UsageError, match=f"{refused} divides the weights .* stage 2"):
        refuse_sharded(accelerator)
