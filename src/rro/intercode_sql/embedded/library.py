"""MySQL's functions: one table of their arguments and results, and what SQLite calls back for each.

In the table, functions.txt, stand each function's name, the forms of its arguments and its result's
type. The forms: t text, n number, i integer, d date as text, h the same with a time of day, v value
unchanged, c value in a form common to all such arguments; those after / may be absent, * repeats
the last. The types `first`, `common`, `floor` and `rounded` depend on the arguments. A function
whose result is `special` is translated by itself, by a method of `Calls`. A routine raises
ValueError where MySQL's function gives NULL. Knows nothing of the tree.
"""

from __future__ import annotations

import re
import sqlite3
from importlib.resources import files
from typing import Any, NamedTuple

from rro.intercode_sql.embedded.aggregates import CLASSES
from rro.intercode_sql.embedded.numeric import NUMBERS
from rro.intercode_sql.embedded.texts import TEXTS
from rro.intercode_sql.embedded.times import TIMES
from rro.intercode_sql.embedded.work import Work

AGGREGATES = {
    **{"STD": "stddev_pop", "STDDEV": "stddev_pop", "STDDEV_POP": "stddev_pop"},
    **{"STDDEV_SAMP": "stddev_samp", "VARIANCE": "var_pop", "VAR_POP": "var_pop"},
    **{"VAR_SAMP": "var_samp", "BIT_AND": "bit_and", "BIT_OR": "bit_or", "BIT_XOR": "bit_xor"},
}


class Signature(NamedTuple):
    """The forms of a function's arguments, how many there may be, and its result's type."""

    forms: str
    least: int
    most: int
    result: str


def _signature(forms: str, result: str) -> Signature:
    needed, _, optional = forms.rstrip("*").partition("/")
    many = forms.endswith("*")
    most = 1000 if many else len(needed + optional)
    return Signature(needed + optional, len(needed), most, result)


_TABLE = files("rro.intercode_sql.embedded").joinpath("functions.txt").read_text(encoding="utf-8")
SIGNATURES = {
    name: _signature(forms, result)
    for name, forms, result in (part.split() for part in re.split(r"[|\n]", _TABLE.strip()))
}
ROUTINES = {f"my_{name}": routine for name, routine in (TEXTS | NUMBERS | TIMES).items()}
_NULLS = "concat_ws elt make_set field interval isnull char nullif any_value"
# Routines that take NULL.
NULLS = {f"my_{name}" for name in _NULLS.split()}
ALLOWED = frozenset({*ROUTINES, *CLASSES})


def _cost(*values: Any) -> int:
    """Long texts cost more than by `Work`: some routines go through them in Python, letter by
    letter, or make a pattern of them."""
    units = 0
    for value in values:
        if value.__class__ in (str, bytes) and len(value) > 100:
            units += 16 * (len(value) - 100)
    return units


def register(connection: sqlite3.Connection, work: Work) -> None:
    """Add the functions to a connection. `work` counts what they do."""
    for name, routine in ROUTINES.items():
        function = work.function(routine, _cost, nulls=name in NULLS)
        connection.create_function(name, -1, function, deterministic=True)
    for name, aggregate in CLASSES.items():
        connection.create_aggregate(name, -1, work.aggregate(aggregate))
