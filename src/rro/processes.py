"""Several processes of one training (`accelerate launch`), and the cores for all. Process 0 writes;
the others wait for it where they must."""

from __future__ import annotations

import os

from rro import stopping


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank() -> int:
    """This process's number; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def any_requests() -> bool:
    """Whether a scheduler wants any of the processes to end: the same answer in all of them, which
    all call this at the same point."""
    if world_size() < 2:
        return stopping.requested()
    import torch

    wanted = torch.tensor(float(stopping.requested()))
    if torch.distributed.get_backend() == "nccl":
        wanted = wanted.cuda()
    torch.distributed.all_reduce(wanted)
    return bool(wanted.item())


def wait_for_all() -> None:
    """Return once every process has come here; at once where there is only one."""
    if world_size() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
