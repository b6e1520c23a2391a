"""ScienceWorld's engine, a Java program, in a process of its own: started with the flag that makes
it deterministic, asked within a time limit, killed when it does not answer.

An engine plays one episode at a time. Knows no conversation and no reward.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

from rro.errors import UsageError, describe

T = TypeVar("T")

# Every object has the same identity hash, so that sets and maps of objects are walked in the order
# of insertion. By default the hash is random: lists of objects in observations change their order
# from one process to the next.
DETERMINISTIC = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
_SAME_HASH = 1
# An engine lives for minutes, so its start counts: the first compiler alone takes a sixth less CPU
# time.
_FLAGS = (*DETERMINISTIC, "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
SPLITS = {"train": "getVariationsTrain", "dev": "getVariationsDev", "test": "getVariationsTest"}
# Times the limit of a call that finding a gold path may take: the engine plays the episode for it.
_GOLD_PATIENCE = 10


class EngineFailed(Exception):
    """The engine died, or did not answer in time and was killed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine says after an action. `score` is from -1 (failed) to 1; `moves` counts
    simulated steps, of which an action takes none, one or several."""

    observation: str
    score: float = 0.0
    completed: bool = False
    moves: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of an episode: the task's description, the actions that exist, and what is
    seen."""

    description: str
    actions: str
    answer: Answer


def check_installed() -> None:
    """Raises UsageError where the engine cannot run: without its packages, or without Java."""
    try:
        import py4j
        import scienceworld  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"ScienceWorld is not installed ({error}): pip install 'rro[scienceworld]'"
        ) from error
    del py4j
    if shutil.which(_java()) is None:
        raise UsageError(
            "ScienceWorld needs Java 11 or newer, and there is no java: install "
            "default-jre-headless, or set JAVA_HOME"
        )


def engine_version() -> str:
    """The version of the package that the engine comes in."""
    return version("scienceworld")


class Engine:
    """A running engine. `timeout`: seconds for each call, after which it is killed.

    `episode` is whose episode its state belongs to: the pool's mark (rro.scienceworld.pool). Raises
    UsageError where Java refuses the flag that makes it deterministic."""

    def __init__(self, timeout: float) -> None:
        self.episode: object | None = None
        self.timeout, self._timed_out = timeout, False
        self._process = _start()
        try:
            self._server = self._call(self._connect)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process at once; a call that waits for it raises EngineFailed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def load(self, task: str, variation: int, simplifications: str) -> Start:
        """Start a variation of a task type."""

        def work() -> Start:
            self._server.load(task, variation, simplifications, False)
            # As in the Python package's reset. Neither costs a move.
            seen = self._step("look around")
            actions = str(self._server.step("help")).partition("\n")[2]
            return Start(str(self._server.getTaskDescription()), actions, seen)

        return self._call(work)

    def step(self, action: str) -> Answer:
        """Carry out one action of the episode."""
        return self._call(lambda: self._step(action))

    def gold(self, task: str, variation: int, simplifications: str) -> list[str]:
        """The actions that solve a variation of a task type, as the engine finds them. Its state is
        no longer that of an episode."""
        self.episode = None

        def work() -> list[str]:
            self._server.load(task, variation, simplifications, True)
            return [str(action) for action in self._server.getGoldActionSequence()]

        return self._call(work, _GOLD_PATIENCE)

    def variations(self) -> dict[str, dict[str, list[int]]]:
        """The variations of each task type in each split, as the engine divides them."""

        def work() -> dict[str, dict[str, list[int]]]:
            return {str(task): self._splits(str(task)) for task in self._server.getTaskNames()}

        return self._call(work)

    def simplifications(self) -> str:
        """The simplifications of the episode that was loaded, by their names."""
        return self._call(lambda: str(self._server.getSimplificationsUsed()))

    def _splits(self, task: str) -> dict[str, list[int]]:
        # The engine divides the task type that is loaded; loading each would take seconds.
        getattr(self._server, "taskStr_$eq")(task)
        return {
            split: json.loads(getattr(self._server, method)().toString())
            for split, method in SPLITS.items()
        }

    def _step(self, action: str) -> Answer:
        server = self._server
        seen = str(server.step(action))
        return Answer(
            seen, float(server.getScore()), bool(server.getCompleted()), int(server.getNumMoves())
        )

    def _connect(self) -> Any:
        from py4j.java_gateway import GatewayParameters, JavaGateway

        assert self._process.stdout is not None
        port, token = (self._process.stdout.readline().decode().strip() for _ in range(2))
        if not port.isdigit():
            raise UsageError(
                f"Java does not start ScienceWorld's engine with {' '.join(_FLAGS)}: "
                "is it Java 11 or newer?"
            )
        _silence_client()
        gateway = JavaGateway(
            gateway_parameters=GatewayParameters(port=int(port), auth_token=token, auto_field=True)
        )
        java = gateway.jvm.java
        if java.lang.System.identityHashCode(java.lang.Object()) != _SAME_HASH:
            raise UsageError(
                "this Java ignores -XX:hashCode=2, without which ScienceWorld is not "
                "deterministic: use OpenJDK"
            )
        # The simulator prints every step, and nobody reads it.
        java.lang.System.setOut(java.io.PrintStream(java.io.OutputStream.nullOutputStream()))
        return gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()

    def _call(self, work: Callable[[], T], patience: float = 1) -> T:
        limit = self.timeout * patience
        watchdog = threading.Timer(limit, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            return work()
        except Exception as error:
            if self._timed_out:
                raise EngineFailed(
                    f"ScienceWorld's engine did not answer within {limit:g} s and was killed"
                ) from error
            if isinstance(error, UsageError):
                raise
            raise EngineFailed(f"ScienceWorld's engine failed: {describe(error)}") from error
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()


@functools.cache
def _silence_client() -> None:
    """What py4j logs when an engine was killed, partly through the root logger, is said by
    EngineFailed."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(lambda record: "py4j" not in record.pathname)


def _start() -> subprocess.Popen[bytes]:
    """The process. It ends when this one does, as its standard input is closed then; Ctrl-C does
    not reach it, so that a run can end in order."""
    from py4j.java_gateway import find_jar_path
    from scienceworld.constants import BASEPATH, JAR_PATH

    options = ["--die-on-broken-pipe", "--enable-auth", "0"]
    classes = os.pathsep.join((find_jar_path(), JAR_PATH))
    command = [_java(), *_FLAGS, "-classpath", classes, "py4j.GatewayServer", *options]
    return subprocess.Popen(
        command,
        cwd=BASEPATH,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else "java"
