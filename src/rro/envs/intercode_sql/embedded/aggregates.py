"""Aggregate and window functions in SQLite's SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlglot import exp

from rro.envs.intercode_sql.embedded import calls
from rro.envs.intercode_sql.embedded.calls import canonical
from rro.envs.intercode_sql.embedded.names import Block, Expr, made
from rro.envs.intercode_sql.embedded.schema import Kind, Type
from rro.envs.intercode_sql.embedded.syntax import Node, SqlError, called
from rro.envs.intercode_sql.embedded.values import (
    DOUBLE,
    INT,
    NULL,
    TEXT,
    as_number,
    as_text,
    average_type,
    number_type,
    string,
    sum_type,
)

Translate = Callable[[Node, Block], Expr]
Form = Callable[[Sequence[Expr], str, bool], tuple[str, Type]]  # operands, "DISTINCT " or "", over a window?
MISUSE = "Invalid use of group function"


def aggregate(translate: Translate, name: str, operands: Sequence[Node], block: Block) -> Expr:
    """A call of an aggregate function over a group."""
    if block.inside_aggregate or not block.aggregates:
        raise SqlError(MISUSE)
    block.inside_aggregate = True
    try:
        return _call(translate, name, operands, block, windowed=False)
    finally:
        block.inside_aggregate = False


def _call(translate: Translate, name: str, operands: Sequence[Node], block: Block, windowed: bool) -> Expr:
    if name == "COUNT" and len(operands) == 1 and isinstance(operands[0], exp.Star):
        return made("count(*)", INT, aggregate=not windowed)
    distinct = len(operands) == 1 and isinstance(operands[0], exp.Distinct)
    block.sorts_groups |= distinct
    given = [translate(operand, block) for operand in (operands[0].expressions if distinct else operands)]
    if not given or (len(given) > 1 and not (name == "COUNT" and distinct)):
        raise calls.wrong_count(name)
    if any(part.aggregated for part in given) and not windowed:
        raise SqlError(MISUSE)
    sql, kind = _FORMS[name](given, "DISTINCT " if distinct else "", windowed)
    return made(sql, kind, *given, aggregate=not windowed)


def group_concat(translate: Translate, node: Any, block: Block) -> Expr:
    """GROUP_CONCAT([DISTINCT] value ... [ORDER BY ...] [SEPARATOR text])."""
    if block.inside_aggregate or not block.aggregates:
        raise SqlError(MISUSE)
    order, inner = (node.this.expressions, node.this.this) if isinstance(node.this, exp.Order) else ([], node.this)
    distinct = isinstance(inner, exp.Distinct)
    block.sorts_groups = block.inside_aggregate = True
    try:
        values = [translate(value, block) for value in (inner.expressions if distinct else [inner])]
        keys = [(translate(item.this, block).by, "D" if item.args.get("desc") else "A") for item in order]
    finally:
        block.inside_aggregate = False
    separator = node.args.get("separator")
    joint = string(separator.name if separator is not None else ",")
    value = "concat(" + ", ".join(map(as_text, values)) + ")"
    given = [str(int(distinct)), joint, string("".join(way for _, way in keys)), value, *(key for key, _ in keys)]
    return made(f"group_text({', '.join(given)})", TEXT, *values, aggregate=True)


def window(translate: Translate, node: Any, block: Block) -> Expr:
    """A function OVER a window. MySQL sorts for it, and rows come out in that order where nothing else sorts them."""
    function = node.this
    name = canonical(called(function)) if isinstance(function, exp.Anonymous) else ""
    if name in calls.WINDOWED:
        operands = [translate(operand, block) for operand in function.expressions]
        sql = f"{name.lower()}({', '.join(operand.sql for operand in operands)})"
        expr = made(sql, calls.WINDOWED[name] or (operands[0].type if operands else NULL), *operands)
    elif name in ("COUNT", "SUM", "AVG", "MIN", "MAX"):
        expr = _call(translate, name, function.expressions, block, windowed=True)
    else:
        raise SqlError("This version of MySQL doesn't yet support 'OVER'")
    partition = [translate(key, block) for key in node.args.get("partition_by") or ()]
    order = node.args.get("order")
    keys = (
        [(translate(item.this, block), " DESC" if item.args.get("desc") else "") for item in order.expressions]
        if order
        else []
    )
    block.windows = [part.by for part in partition] + [key.by + way for key, way in keys]
    over = f"PARTITION BY {', '.join(part.by for part in partition)} " if partition else ""
    over += f"ORDER BY {', '.join(key.by + way for key, way in keys)}" if keys else ""
    if (frame := node.args.get("spec")) is not None:
        over += " " + frame.sql("sqlite")
    return made(f"{expr.sql} OVER ({over})", expr.type, *expr.parts, *partition, *(key for key, _ in keys))


def _count(given: Sequence[Expr], distinct: str, windowed: bool) -> tuple[str, Type]:
    if len(given) == 1:
        return f"count({distinct}{given[0].by if distinct else given[0].sql})", INT
    some = " OR ".join(f"{part.sql} IS NULL" for part in given)
    all_of = " || '|' || ".join(f"quote({part.by})" for part in given)
    return f"count(DISTINCT CASE WHEN {some} THEN NULL ELSE {all_of} END)", INT


def _sum(name: str) -> Form:
    def form(given: Sequence[Expr], distinct: str, windowed: bool) -> tuple[str, Type]:
        kind = number_type(given[0])
        plain = windowed or kind.kind in (Kind.INT, Kind.DECIMAL)
        function = name if plain else f"{name}_of_doubles"
        return f"{function}({distinct}{as_number(given[0])})", sum_type(kind) if name == "sum" else average_type(kind)

    return form


def _extreme(name: str) -> Form:
    def form(given: Sequence[Expr], distinct: str, windowed: bool) -> tuple[str, Type]:
        collated = " COLLATE general_ci" if given[0].type.kind is Kind.TEXT else ""
        return f"{name}({given[0].sql}{collated})", given[0].type

    return form


def _spread(sample: int, root: int) -> Form:
    return lambda given, distinct, windowed: (f"spread({as_number(given[0])}, {sample}, {root})", DOUBLE)


_FORMS: dict[str, Form] = {
    "COUNT": _count,
    "SUM": _sum("sum"),
    "AVG": _sum("avg"),
    "MIN": _extreme("min"),
    "MAX": _extreme("max"),
    "STD": _spread(0, 1),
    "STDDEV_SAMP": _spread(1, 1),
    "VARIANCE": _spread(0, 0),
    "VAR_SAMP": _spread(1, 0),
    "ANY_VALUE": lambda given, distinct, windowed: (f"min({given[0].sql})", given[0].type),
}
