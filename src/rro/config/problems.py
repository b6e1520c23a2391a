"""What is wrong with a recipe, in our words: every problem at once, each with its origin.

Knows pydantic's errors and turns them into sentences; none of pydantic's words reach a user.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rro.config.origins import Origins, Path
from rro.config.sections import Config
from rro.config.tables import Section
from rro.config.wording import expected, model_in
from rro.errors import UsageError

_LONGEST_VALUE, _LONGEST_KEY = 60, 100


@dataclass(frozen=True)
class Problem:
    """One setting that is wrong: its key, and a sentence that begins with the key. What a
    `secret` one was set to is printed nowhere."""

    path: Path
    sentence: str
    secret: bool = False


def refuse(problems: Iterable[Problem], origins: Origins) -> None:
    """Raises UsageError that tells all problems, one a line, in the order of writing, if there are
    any."""
    ordered = sorted(problems, key=lambda problem: origins.order(problem.path))
    lines = list(dict.fromkeys(_line(problem, origins) for problem in ordered))
    if len(lines) == 1:
        raise UsageError(lines[0])
    if lines:
        raise UsageError("\n  ".join([f"{len(lines)} settings are wrong:", *lines]))


def _line(problem: Problem, origins: Origins) -> str:
    """Where a problem was written and what it is; a key that the place tells is not said again."""
    sentence = problem.sentence
    if origins.names(problem.path):
        sentence = sentence.removeprefix(f"{'.'.join(problem.path)}: ")
    return f"{origins.of(problem.path, secret=problem.secret)}: {sentence}"


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    tree: Any,
    written: Callable[[Path], Path] = lambda path: path,
) -> list[Problem]:
    """The problems that validating `tree` by `model` found. One for each setting, however many ways
    of reading it failed. `written` gives the key by which a recipe sets what is at a path of the
    tree."""
    found: dict[Path, Problem] = {}
    for detail in error.errors():
        path, field = _locate(model, detail["loc"])
        if detail["type"] in ("extra_forbidden", "unknown_key"):
            key = detail["ctx"]["key"] if "ctx" in detail else str(detail["loc"][-1])
            path = (*path, key)
            problem = unknown_key(written(path), known_keys(model, path[:-1]))
        elif detail["type"] == "not_a_table":
            path = (*path, detail["ctx"]["key"])
            problem = Problem(written(path), f"{'.'.join(written(path))} must be a table")
        else:
            problem = _wrong_value(written(path), field, detail, _value_at(tree, path))
        found.setdefault(path, problem)
    return list(found.values())


def unknown_key(path: Path, known: Sequence[str]) -> Problem:
    """A key that does not exist, with the nearest of the `known` ones; one that the top of a recipe
    has was written in the wrong place."""
    close = difflib.get_close_matches(path[-1], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
    if len(path) > 1 and _stands_at_the_top(path[-1]):
        hint += "" if close else ";"
        hint += f" {path[-1]} stands at the top of a recipe, above the first [section]"
    key = ".".join(path)
    shown = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}..."
    return Problem(path, f"unknown key {shown}: {hint}")


def _stands_at_the_top(key: str) -> bool:
    """Whether a recipe has this setting above its first section."""
    field = Config.model_fields.get(key)
    kind = field.annotation if field else Section
    return not (isinstance(kind, type) and issubclass(kind, Section))


def known_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the table at `path`."""
    section: type[BaseModel] | None = model
    for part in path:
        field = section.model_fields.get(part) if section else None
        section = model_in(field.annotation) if field else None
    plugins = getattr(section, "door", None)
    return [*(section.model_fields if section else ()), *(plugins.names() if plugins else ())]


def _locate(model: type[BaseModel], location: Sequence[int | str]) -> tuple[Path, FieldInfo | None]:
    """The setting that an error is about: what lies deeper (items of a list, ways of reading a
    value) belongs to it."""
    path: Path = ()
    section: type[BaseModel] | None = model
    field = None
    for part in location:
        if section is None or str(part) not in section.model_fields:
            break
        field = section.model_fields[str(part)]
        path, section = (*path, str(part)), model_in(field.annotation)
    return path, field


def _wrong_value(path: Path, field: FieldInfo | None, detail: Any, value: Any) -> Problem:
    key = ".".join(path)
    prefix = f"{key}: " if key else ""
    if detail["type"] == "missing" and field is not None:
        return Problem(path, f"{key} is missing: set it to {expected(field)}")
    if detail["type"] in ("value_error", "assertion_error"):  # the sentence of a validator
        return Problem(path, f"{prefix}{detail['ctx']['error']}")
    # pydantic gives its own errors a link, apart from that of paths
    about_type = "url" in detail or detail["type"] in ("path_type", "truth_value")
    if field is None or not about_type:
        return Problem(path, f"{prefix}{detail['msg']}", secret=detail["type"] == "secret")
    words = expected(field)
    return Problem(path, f"{key} must be {words}, not {_shown(value)}{_hint(value, words)}")


def _hint(value: Any, words: str) -> str:
    """The nearest of the possible values."""
    choices = words.removeprefix("one of ").split(", ") if words.startswith("one of ") else []
    close = difflib.get_close_matches(str(value), choices, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _value_at(tree: Any, path: Path) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else getattr(tree, part, None)
    return tree


def _shown(value: Any) -> str:
    plain = isinstance(value, date | time)
    text = str(value).lower() if isinstance(value, bool) else str(value) if plain else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
