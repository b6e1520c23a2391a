"""Environments whose methods are coroutines: all are awaited in one event loop, in a thread of its
own. What an environment opens there, such as a connection, outlives the event loop of a stage.

Knows nothing of time limits: a call that is given up (`rro.environments.calls`) cancels its
coroutine."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable
from typing import TypeVar, cast

from rro.concurrency import contained
from rro.loop_thread import LoopThread

T = TypeVar("T")


def settled(answer: Awaitable[T] | T) -> T:
    """What a method of an environment returned or, if that is to be awaited, what it gives then.
    Waits in the thread of the call; raises what the coroutine raises."""
    if not isinstance(answer, Awaitable):
        return answer
    return cast(T, _thread(os.getpid()).run_blocking(_awaited(answer)))


async def _awaited(answer: Awaitable[T]) -> T:
    with contained():
        return await answer


@functools.cache
def _thread(process: int) -> LoopThread:
    """One for each process: a forked one has its parent's objects, but none of its threads."""
    return LoopThread(f"the event loop of environments in process {process}")
