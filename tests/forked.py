"""`rro` and scripts in processes that are forked from one where everything is imported: they start
at once, where a new interpreter imports for seconds. They can be killed at any moment. Not for
tests of how Python itself starts."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "rro.cli.main",
        "rro.pipeline.stages",
        "rro.report.tables",
        "rro.learning.sft_trainer",
        "rro.learning.dpo_trainer",
        "rro.learning.policy_gradient_trainer",
        "rro.policies.local.policy",
        "transformers.models.llama.modeling_llama",
    ]
)
# Of a process that can be sent signals, among what it printed.
_READY = "ready"


class Ended(NamedTuple):
    """What a process left: its exit code (a signal's number, negated) and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class _Job(NamedTuple):
    words: list[str]
    cwd: str | None
    search: list[str]
    script: bool


class Forked:
    """A process that runs `rro` with some arguments, or a script, with today's environment and more
    `variables`."""

    def __init__(self, job: _Job, variables: Mapping[str, str]) -> None:
        self._printed = Path(tempfile.mkdtemp(prefix="rro-forked-"))
        arguments = (job, {**os.environ, **variables}, self._printed)
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        # Before, a signal would end the server's part of it, with another exit code.
        while self.exitcode is None and not (self._printed / _READY).exists():
            time.sleep(0.001)

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end, or that long."""
        self._process.join(seconds)

    def send_signal(self, number: int) -> None:
        """Send it, unless the process has ended."""
        if self.exitcode is None:
            os.kill(self.pid, number)

    def ended(self, seconds: float = 280) -> Ended:
        """Wait for the end."""
        self.join(seconds)
        assert self.exitcode is not None, self._text("stderr")
        return Ended(self.exitcode, self._text("stdout"), self._text("stderr"))

    def _text(self, name: str) -> str:
        # Nothing is there of one that was killed before it could open its files.
        file = self._printed / name
        return file.read_text(errors="replace") if file.exists() else ""


def start(
    *words: object,
    cwd: object = None,
    search: Sequence[object] = (),
    script: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Forked:
    """`rro` with these arguments in folder `cwd`, or the script that they begin with; modules are
    also looked for in the folders `search`."""
    texts = [str(word) for word in words]
    folders = [str(folder) for folder in search]
    return Forked(_Job(texts, None if cwd is None else str(cwd), folders, script), variables or {})


def rro(*words: object, cwd: object = None, search: Sequence[object] = ()) -> Ended:
    """What `rro` with these arguments leaves."""
    return start(*words, cwd=cwd, search=search).ended()


def python(*words: object, cwd: object = None) -> Ended:
    """What a script with these arguments leaves."""
    return start(*words, cwd=cwd, script=True).ended()


def training(count: int, *words: object) -> list[Ended]:
    """What a script leaves that begins with `words`, in `count` processes of one training, with
    the variables that a launcher gives them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    each = [{**common, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(count)]
    started = [
        start(*words, script=True, variables=variables if count > 1 else None) for variables in each
    ]
    return [process.ended() for process in started]


def _run(job: _Job, environment: dict[str, str], printed: Path) -> None:
    for number, name in enumerate(("stdout", "stderr"), start=1):
        with (printed / name).open("w") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        (printed / _READY).touch()
        _end(_work(job))
    except KeyboardInterrupt:  # before the command began, or after it had ended
        _end(130)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(job: _Job) -> int:
    import torch

    gc.freeze()
    torch.set_num_threads(1)
    if job.cwd is not None:
        os.chdir(job.cwd)
    sys.path[:0] = job.search
    if job.script:
        sys.argv = job.words
        sys.path.insert(0, str(Path(job.words[0]).parent.absolute()))
        runpy.run_path(job.words[0], run_name="__main__")
        return 0
    from rro.cli.main import main

    sys.argv = ["rro", *job.words]
    return main(job.words)
