"""The page of a table of results: methods x environments over training seeds, as
`benchmarks/results.py` writes them to its results.json. Reads that file, computes no figure, and
knows no HTML."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rro import __version__
from rro.codec import first_problem, from_plain, to_plain
from rro.errors import DataError
from rro.types import FINITE


@dataclass(frozen=True)
class _Interval:
    __pydantic_config__: ClassVar = FINITE

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class _Row:
    """What every row has; its intervals and costs are checked as they are sorted."""

    environment: str
    method: str
    policy: str
    seeds: int


@dataclass(frozen=True)
class _Curve:
    """One training seed: (generated tokens, reward) of what each round played, and (generated
    tokens, mode, reward) of each evaluated policy."""

    __pydantic_config__: ClassVar = FINITE

    seed: int
    played: list[tuple[int, float]]
    evaluated: list[tuple[int, str, float]]


@dataclass(frozen=True)
class _Results:
    rows: list[dict[str, Any]]
    curves: dict[str, dict[str, list[_Curve]]]
    settings: dict[str, list[str]]
    missing: list[str]
    plan: dict[str, Any]


def results_head(file: Path) -> dict[str, Any]:
    """The page's data. Raises DataError where the file is missing or has another form."""
    try:
        results = from_plain(_Results, json.loads(file.read_text(encoding="utf-8")))
        rows = [_row(row) for row in results.rows]
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(
            f"{file}: no table of results ({first_problem(error)}): name the results.json that "
            "benchmarks/results.py wrote"
        ) from None
    methods = list(results.plan.get("methods") or {})
    return {
        "rro": __version__,
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "results": {
            "name": file.resolve().parent.name,
            "first": results.plan.get("first") or (methods[0] if methods else None),
            "rows": rows,
            "curves": {
                environment: {
                    method: [to_plain(curve) for curve in curves]
                    for method, curves in by_method.items()
                }
                for environment, by_method in results.curves.items()
            },
            "settings": results.settings,
            "missing": results.missing,
            "plan": json.dumps(results.plan, indent=1),
        },
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A row: what it is of, its intervals by name, and its costs."""
    known = to_plain(from_plain(_Row, row))
    others = {name: value for name, value in row.items() if name not in known}
    return {
        **known,
        "intervals": {
            name: to_plain(from_plain(_Interval, value))
            for name, value in others.items()
            if isinstance(value, dict)
        },
        "costs": {
            name: from_plain(float, value)
            for name, value in others.items()
            if not isinstance(value, dict)
        },
    }
