"""The options of `environment.name = "scienceworld"`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rro.config import Section

Score = Literal["final", "best"]


class ScienceWorldOptions(Section):
    """ScienceWorld, a text world in which an agent does science experiments of primary school. Its
    engine needs Java."""

    tasks: list[str] = Field(default_factory=list)
    """Names of the task types, such as `melt`. Default: all 30."""
    variations: int | None = Field(None, ge=1)
    """At most so many variations of each task type in each split. Default: all."""
    simplifications: str = "easy"
    """Names of simplifications with commas between them, or `easy`, the default of the authors'
    agents; empty for none."""
    move_limit: int = Field(100, ge=1)
    """Simulated moves after which an episode ends, as the engine counts them: looking costs none,
    waiting more than one."""
    score: Score = "final"
    """The outcome: the engine's score at the end, where a failed task has 0 (`final`), or the
    highest score that the episode reached, as ETO counts it (`best`)."""
    system: str | None = None
    """The opening message that explains the rules; the actions that exist are listed below it.
    Default: a built-in text. An empty text leaves out both the message and its acknowledgement,
    "OK"."""
    engines: int = Field(8, ge=1)
    """Engines at once, each a Java process of a few hundred MB; they are started when they are
    needed. With more episodes at once, these take turns, which costs replays."""
    timeout: float = Field(60.0, gt=0)
    """Seconds that the engine may take for one call. Then it is killed and replaced, and the
    episode has failed."""
