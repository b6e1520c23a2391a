"""Translates expressions: resolves names, infers types, and replaces what has another meaning in
SQLite.

The method `on_KEY` translates the nodes of SQLGlot with that key. Nodes with the same meaning in
both dialects need none, and SQLGlot translates functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL

from rro.intercode_sql.embedded import functions
from rro.intercode_sql.embedded.names import GROUP, ON, WHERE, Scope, Value
from rro.intercode_sql.embedded.store import (
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    NULL,
    TEXT,
    Type,
    common_type,
    number,
)
from rro.intercode_sql.engine import TODAY, SqlError

_TYPES = {"INT": INT, "TINYINT": INT, "BIGINT": INT, "UBIGINT": INT, "DOUBLE": DOUBLE, "NULL": NULL}
_TYPES |= {"DATE": DATE, "DATETIME": DATETIME, "TIMESTAMP": DATETIME}


def call(name: str, *operands: Any) -> Any:
    """A call of a function of SQLite."""
    return exp.Anonymous(this=name, expressions=[operand.copy() for operand in operands])


def key(value: Value) -> Any:
    """What a value is compared, grouped and sorted by. For a stored text, the column beside it."""
    if value.type != TEXT:
        return value.node
    if isinstance(value.node, exp.Literal):
        return exp.Literal.string(functions.key(value.node.this))
    if value.node.args.get("stored"):
        return exp.column(f"{value.node.name}#", value.node.table, quoted=True)
    return call("ci", value.node)


def as_number(value: Value) -> Value:
    """The value in arithmetic. For a text, the number that it begins with."""
    if value.type == TEXT:
        return Value(exp.cast(value.node, "real"), DOUBLE)
    return Value(value.node, INT if value.type in (DATE, DATETIME, NULL) else value.type)


def comparable(one: Value, other: Value) -> list[Any]:
    """Two values in forms that SQLite compares as MySQL does: texts by collation, dates as dates,
    everything else as numbers."""
    kinds = {one.type, other.type} - {NULL}
    if kinds <= {TEXT}:
        return [key(one), key(other)]
    if not kinds <= {TEXT, DATE, DATETIME}:
        return [as_number(one).node, as_number(other).node]
    days = DATETIME not in kinds and all(
        len(value.node.name) <= 10 for value in (one, other) if value.node.is_string
    )
    kind, name = (DATE, "date") if days else (DATETIME, "timestamp")
    return [
        value.node if value.type in (kind, NULL) else call(name, value.node)
        for value in (one, other)
    ]


class Expressions:
    """Translates expressions of a statement. `database` is the one in use."""

    database: str

    def query(self, node: Any, outer: Scope | None, numbered: bool = False) -> Any:
        """Translate a subquery into `sql` and its `columns`, named c1, c2 ... (see `Queries`)."""
        raise AssertionError

    def value(self, node: Any, scope: Scope) -> Value:
        """Translate an expression in its place in the tree. Raises SqlError if MySQL rejects it."""
        translated = getattr(self, f"on_{node.key}", self._shared)(node, scope)
        value = translated if isinstance(translated, Value) else Value(node, translated)
        if value.node is not node:
            node.replace(value.node)
        return value

    def values(self, nodes: Iterable[Any], scope: Scope) -> list[Value]:
        """Translate several expressions."""
        return [self.value(node, scope) for node in list(nodes)]

    def _shared(self, node: Any, scope: Scope) -> Type:
        """A node with the same meaning in both dialects: only its parts are translated."""
        kinds = [value.type for value in self.values(node.iter_expressions(), scope)]
        if isinstance(node, exp.Predicate | exp.Connector | exp.Not | exp.Boolean | exp.DateDiff):
            return INT
        returned = MySQL.EXPRESSION_METADATA.get(type(node), {}).get("returns")
        return _TYPES.get(returned.name, TEXT) if returned is not None else common_type(kinds)

    def on_literal(self, node: Any, scope: Scope) -> Type:
        if node.is_string:
            # A NUL would end SQLite's statement, and lone surrogates are not UTF-8.
            node.set("this", node.this.replace("\0", "\ufffd").encode("utf-8", "replace").decode())
            return TEXT
        if "e" in node.this.lower():
            return DOUBLE
        return number(True, len(node.this.partition(".")[2]))

    def on_column(self, node: Any, scope: Scope) -> Value:
        column = scope.find(node)
        return column._replace(node=column.node.copy())

    def on_eq(self, node: Any, scope: Scope) -> Value:
        one, other = self.values((node.this, node.expression), scope)
        if isinstance(node, exp.EQ) and _must_hold(node):
            scope.equate(one.node, other.node)
        return _compared(type(node), one, other)

    on_neq = on_gt = on_gte = on_lt = on_lte = on_nullsafeeq = on_eq

    def on_between(self, node: Any, scope: Scope) -> Value:
        value, low, high = self.values((node.args[part] for part in ("this", "low", "high")), scope)
        (left, least), (_, most) = comparable(value, low), comparable(value, high)
        return Value(exp.Between(this=left, low=least, high=most), INT)

    def on_add(self, node: Any, scope: Scope) -> Type:
        if isinstance(node.expression, exp.Interval):
            raise SqlError("This version of MySQL doesn't yet support 'INTERVAL'")
        one, other = map(as_number, self.values((node.this, node.expression), scope))
        kind = common_type((one.type, other.type))
        if isinstance(node, exp.Mul) and kind.exact:
            return number(True, (one.type.scale or 0) + (other.type.scale or 0))
        if isinstance(node, exp.Div):
            return _quotient(one.type if kind.exact else kind)
        return INT if isinstance(node, exp.IntDiv) else kind

    on_sub = on_mul = on_div = on_intdiv = on_mod = on_add

    def on_case(self, node: Any, scope: Scope) -> Type:
        """CASE x WHEN y is written as CASE WHEN x = y."""
        # A nested CASE would be copied into every branch.
        if node.this is not None and node.this.find(exp.Case):
            raise SqlError("This version of MySQL doesn't yet support 'CASE CASE'")
        for branch in node.args["ifs"] if node.this is not None else ():
            branch.set("this", exp.EQ(this=node.this.copy(), expression=branch.this))
        node.set("this", None)
        return self._shared(node, scope)

    def on_if(self, node: Any, scope: Scope) -> Type:
        """IF, or a branch of CASE. Its type is that of its results."""
        return common_type(value.type for value in self.values(node.iter_expressions(), scope)[1:])

    def on_cast(self, node: Any, scope: Scope) -> Value:
        value, to = self.value(node.this, scope), node.args["to"]
        kind = _TYPES.get(to.this.name, TEXT)
        if to.this.name == "DECIMAL":
            scale = int(to.expressions[1].name) if len(to.expressions) > 1 else 0
            return Value(as_number(value).node, number(True, scale))
        if kind in (DATE, DATETIME):
            return Value(call("date" if kind == DATE else "timestamp", value.node), kind)
        if kind == INT:
            return Value(exp.cast(call("round", as_number(value).node), "bigint"), INT)
        return Value(node, kind)

    def on_round(self, node: Any, scope: Scope) -> Value | Type:
        value, *places = self.values(node.iter_expressions(), scope)
        kind = as_number(value).type
        if kind == INT or isinstance(node, exp.Ceil | exp.Floor):
            return Value(exp.cast(node, "bigint"), INT)
        return Type(kind.kind, int(places[0].node.name) if places and places[0].node.is_int else 0)

    on_ceil = on_floor = on_round

    def on_currentschema(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(self.database), TEXT)

    def on_currentdate(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(TODAY), DATE)

    def on_currenttimestamp(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(f"{TODAY} 12:00:00"), DATETIME)

    def on_anonymous(self, node: Any, scope: Scope) -> Value | Type:
        if node.name.upper() == "NOW":
            return self.on_currenttimestamp(node, scope)
        return self._shared(node, scope)

    def on_concat(self, node: Any, scope: Scope) -> Value:
        values = self.values(node.expressions, scope)
        return Value(call("concat", *(value.node for value in values)), TEXT)

    def on_left(self, node: Any, scope: Scope) -> Value:
        values = self.values((node.this, node.expression), scope)
        return Value(call(f"{node.key}_of", *(value.node for value in values)), TEXT)

    on_right = on_left

    def on_count(self, node: Any, scope: Scope) -> Type:
        """COUNT, SUM, AVG, MIN, MAX and GROUP_CONCAT."""
        if scope.in_aggregate or scope.clause in (WHERE, ON, GROUP):
            raise SqlError("Invalid use of group function")
        scope.aggregated |= not isinstance(node.parent, exp.Window)
        if isinstance(node.this, exp.Star):
            return INT
        distinct = isinstance(node.this, exp.Distinct)
        scope.in_aggregate, scope.sorts = True, scope.sorts or distinct
        value = self.value(node.this.expressions[0] if distinct else node.this, scope)
        scope.in_aggregate = False
        return self._aggregate(node, value, distinct)

    def _aggregate(self, node: Any, value: Value, distinct: bool) -> Type:
        """The type of an aggregate. Texts are counted and compared by collation."""
        kind = as_number(value).type
        if isinstance(node, exp.Avg):
            return _quotient(kind)
        if isinstance(node, exp.Sum):
            return Type("decimal" if kind.exact else "double", kind.scale)
        if isinstance(node, exp.Count):
            if distinct:
                value.node.replace(key(value).copy())
            return INT
        if isinstance(node, exp.Min | exp.Max) and value.type == TEXT:
            collation = exp.Var(this="general_ci")
            value.node.replace(exp.Collate(this=value.node.copy(), expression=collation))
        return TEXT if isinstance(node, exp.GroupConcat) else value.type

    on_sum = on_avg = on_min = on_max = on_groupconcat = on_count

    def on_window(self, node: Any, scope: Scope) -> Type:
        return self.values(node.iter_expressions(), scope)[0].type

    def on_subquery(self, node: Any, scope: Scope) -> Value:
        query = self._inner(node, scope)
        return Value(
            exp.Var(this=f"(SELECT only(c1, count(*)) FROM ({query.sql}))"), query.columns[0].type
        )

    on_select = on_union = on_subquery

    def on_exists(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Var(this=f"EXISTS ({self.query(node.this, scope).sql})"), INT)

    def on_in(self, node: Any, scope: Scope) -> Value:
        wanted, inner = node.this.unnest(), node.args.get("query")
        if inner is None:
            value, *items = self.values((node.this, *node.expressions), scope)
            pairs = [comparable(value, item) for item in items]
            return Value(exp.In(this=pairs[0][0], expressions=[item for _, item in pairs]), INT)
        if inner.unnest().args.get("limit"):
            raise SqlError(
                "This version of MySQL doesn't yet support 'LIMIT & IN/ALL/ANY/SOME subquery'"
            )
        nodes = wanted.expressions if isinstance(wanted, exp.Tuple) else [wanted]
        query = self._inner(inner, scope, len(nodes))
        pairs = [
            comparable(*pair) for pair in zip(self.values(nodes, scope), query.columns, strict=True)
        ]
        left, right = (
            ", ".join(part.sql("sqlite") for part in side) for side in zip(*pairs, strict=True)
        )
        return Value(exp.Var(this=f"(({left}) IN (SELECT {right} FROM ({query.sql})))"), INT)

    def _inner(self, node: Any, scope: Scope, width: int = 1) -> Any:
        query = self.query(node, scope)
        if len(query.columns) != width:
            raise SqlError(f"Operand should contain {width} column(s)")
        return query


def _compared(sign: Any, one: Value, other: Value) -> Value:
    left, right = comparable(one, other)
    return Value(sign(this=left, expression=right), INT)


def _quotient(kind: Type) -> Type:
    """The type of a division or an average: with four more digits after the point."""
    return number(kind.exact, None if kind.scale is None else kind.scale + 4)


def _must_hold(node: Any) -> bool:
    """Whether a comparison is a condition of WHERE or ON by itself, or joined by AND."""
    parent = node.parent
    while isinstance(parent, exp.And | exp.Paren):
        parent = parent.parent
    return isinstance(parent, exp.Where | exp.Join)
