"""Expressions of a statement: names resolved, types inferred, and what means another thing in SQLite replaced.

A method `on_` with the key of SQLGlot's node takes care of it. A node that means the same in both dialects needs none, and
functions are SQLGlot's to translate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL

from rro.envs.intercode_sql.embedded.catalogue import DATE, DATETIME, DOUBLE, INT, TEXT, Type
from rro.envs.intercode_sql.embedded.functions import MONTHS, NOW, UNITS
from rro.envs.intercode_sql.embedded.names import GROUP, IN_SUBQUERY, ON, WHERE, Scope, SqlError, Value
from rro.envs.intercode_sql.embedded.values import (
    as_number,
    as_text,
    call,
    common_type,
    comparable,
    converted,
    key,
    number,
    numeric,
    widest,
)

_TYPES = {"INT": INT, "TINYINT": INT, "BIGINT": INT, "DOUBLE": DOUBLE, "VARCHAR": TEXT, "DATE": DATE, "TIMESTAMP": DATETIME}
_ANONYMOUS = {"NOW": DATETIME, "MID": TEXT, "WEEKDAY": INT}
_CASTS = {"BIGINT": INT, "UBIGINT": INT, "DATE": DATE, "DATETIME": DATETIME, "DOUBLE": DOUBLE, "FLOAT": DOUBLE}
_DIVISION_DIGITS = 4  # that a division or an average adds after the point


class Expressions:
    """Translates expressions of a statement that runs with `database` in use."""

    database: str

    def value(self, node: Any, scope: Scope) -> Value:
        """Translate an expression in its place in the tree. Raises SqlError."""
        method = getattr(self, f"on_{node.key}", self._shared)
        found = method(node, scope)
        value = found if isinstance(found, Value) else Value(node, found)
        if value.node is not node:
            value = value._replace(node=value.node.copy())
            node.replace(value.node)
        return value

    def values(self, nodes: Iterable[Any], scope: Scope) -> list[Value]:
        return [self.value(node, scope) for node in list(nodes)]

    def _shared(self, node: Any, scope: Scope) -> Type:
        """A node that means the same in both dialects, once its parts are translated."""
        kinds = [value.type for value in self.values(node.iter_expressions(), scope)]
        if isinstance(node, exp.Predicate | exp.Connector | exp.Not | exp.Boolean):
            return INT
        if isinstance(node, exp.Anonymous):
            return _ANONYMOUS.get(node.name.upper(), TEXT)
        returned = MySQL.EXPRESSION_METADATA.get(type(node), {}).get("returns")
        return _TYPES.get(returned.name, TEXT) if returned is not None else common_type(kinds)

    # --- leaves and operators

    def on_literal(self, node: Any, scope: Scope) -> Type:
        if node.is_string:  # SQLite's statements end at NUL, and hold no lone surrogates
            node.set("this", node.this.replace("\0", "\ufffd").encode("utf-8", "replace").decode())
            return TEXT
        return DOUBLE if "e" in node.this.lower() else number(True, len(node.this.partition(".")[2]))

    def on_column(self, node: Any, scope: Scope) -> Value:
        return scope.find(node.name, node.table, node.db)

    def on_eq(self, node: Any, scope: Scope) -> Value | Type:
        if isinstance(node.expression, exp.All | exp.Any):
            return self._quantified(node, scope)
        if isinstance(node.this, exp.Tuple):
            return self._shared(node, scope)
        one, other = self.values((node.this, node.expression), scope)
        if isinstance(node, exp.EQ) and _must_hold(node):
            scope.equate(one.node, other.node)
        return self._compared(type(node), one, other)

    on_neq = on_gt = on_gte = on_lt = on_lte = on_nullsafeeq = on_eq

    def _compared(self, sign: Any, one: Value, other: Value) -> Value:
        left, right = comparable(one, other)
        return Value(sign(this=left.copy(), expression=right.copy()), INT)

    def on_between(self, node: Any, scope: Scope) -> Value:
        value, low, high = self.values((node.args[part] for part in ("this", "low", "high")), scope)
        above, below = self._compared(exp.GTE, value, low), self._compared(exp.LTE, value, high)
        return Value(exp.paren(exp.and_(above.node, below.node)), INT)

    def on_add(self, node: Any, scope: Scope) -> Value:
        if isinstance(node.expression, exp.Interval):
            return self._moved(node.this, node.expression, isinstance(node, exp.Sub), scope)
        one, other = self.values((node.this, node.expression), scope)
        mine, theirs = numeric(one.type), numeric(other.type)
        exact, scale = mine.exact and theirs.exact, widest(mine.scale, theirs.scale)
        kind = number(exact, scale)
        if isinstance(node, exp.Mul) and exact:
            kind = number(exact, (mine.scale or 0) + (theirs.scale or 0))
        elif isinstance(node, exp.Div):
            kind = _quotient(mine if exact else Type("double", scale))
        left, right = as_number(one).copy(), as_number(other).copy()
        if isinstance(node, exp.Mod):
            return Value(call("remainder", left, right), kind)
        return Value(type(node)(this=left, expression=right), INT if isinstance(node, exp.IntDiv) else kind)

    on_sub = on_mul = on_div = on_intdiv = on_mod = on_add

    def on_neg(self, node: Any, scope: Scope) -> Type:
        return numeric(self.value(node.this, scope).type)

    # --- choices, casts and functions

    def on_case(self, node: Any, scope: Scope) -> Type:
        branches, default = node.args["ifs"], node.args.get("default")
        tests = self.values((branch.this for branch in branches), scope)
        if node.this is not None:
            subject = self.value(node.this, scope)
            node.set("this", None)
            for branch, test in zip(branches, tests, strict=True):
                branch.set("this", self._compared(exp.EQ, subject, test).node)
        return self._common([*(branch.args["true"] for branch in branches), *([default] if default else [])], scope)

    def on_if(self, node: Any, scope: Scope) -> Type:
        self.value(node.this, scope)
        return self._common([node.args["true"], *filter(None, [node.args.get("false")])], scope)

    def on_coalesce(self, node: Any, scope: Scope) -> Type:
        return self._common([node.this, *node.expressions], scope)

    on_greatest = on_least = on_coalesce

    def _common(self, nodes: Sequence[Any], scope: Scope) -> Type:
        """Operands brought to a common type."""
        values = self.values(nodes, scope)
        kind = common_type(value.type for value in values)
        for value in values:
            if (node := converted(value, kind)) is not value.node:
                value.node.replace(node)
        return kind

    def on_cast(self, node: Any, scope: Scope) -> Value:
        value, sizes = self.value(node.this, scope), node.args["to"].expressions
        kind = _CASTS.get(node.args["to"].this.name, TEXT)
        if "DECIMAL" in node.args["to"].this.name:
            return Value(as_number(value), number(True, int(sizes[1].name) if len(sizes) > 1 else 0))
        if kind == INT:
            return Value(exp.cast(call("round", as_number(value)), "bigint"), INT)
        if kind in (DATE, DATETIME):
            return Value(call("date" if kind == DATE else "timestamp", as_text(value)), kind)
        return Value(as_number(value) if kind == DOUBLE else as_text(value), kind)

    def on_round(self, node: Any, scope: Scope) -> Value | Type:
        value, *places = self.values(node.iter_expressions(), scope)
        kind, digits = numeric(value.type), places[0].node if places else exp.Literal.number(0)
        if kind == INT or isinstance(node, exp.Ceil | exp.Floor):
            return Value(exp.cast(node, "bigint"), INT)
        return Type(kind.kind, int(digits.name) if digits.is_int else kind.scale)

    on_ceil = on_floor = on_round

    def on_collate(self, node: Any, scope: Scope) -> Value:
        return self.value(node.this, scope)

    def on_currentschema(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(self.database), TEXT)

    def on_currentdate(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(str(NOW.date())), DATE)

    def on_currenttimestamp(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(str(NOW)), DATETIME)

    def on_dateadd(self, node: Any, scope: Scope) -> Value:
        interval = exp.Interval(this=node.expression.copy(), unit=node.args.get("unit") or exp.Var(this="DAY"))
        node.set("expression", interval)
        return self._moved(node.this, interval, isinstance(node, exp.DateSub), scope)

    on_datesub = on_dateadd

    def _moved(self, start: Any, interval: Any, back: bool, scope: Scope) -> Value:
        value, amount = self.values((start, interval.this), scope)
        unit = interval.text("unit").upper()
        kind = DATETIME if value.type == DATE and unit in ("HOUR", "MINUTE", "SECOND") else value.type
        count = exp.Neg(this=exp.paren(amount.node)) if back else amount.node
        return Value(call("date_add", value.node, count, exp.Literal.string(_unit(unit))), kind)

    def on_timestampdiff(self, node: Any, scope: Scope) -> Value:
        end, start = self.values((node.this, node.expression), scope)
        unit = exp.Literal.string(_unit(node.text("unit").upper()))
        return Value(call("timestamp_diff", unit, start.node, end.node), INT)

    def on_extract(self, node: Any, scope: Scope) -> Value:
        return Value(call(_unit(node.name.upper()).lower(), self.value(node.expression, scope).node), INT)

    def on_concat(self, node: Any, scope: Scope) -> Type:
        for value in self.values(node.expressions, scope):
            value.node.replace(as_text(value).copy())
        return TEXT

    # --- aggregates and windows

    def on_count(self, node: Any, scope: Scope) -> Value | Type:
        if scope.in_aggregate or scope.clause in (WHERE, ON, GROUP):
            raise SqlError("Invalid use of group function")
        if isinstance(node.this, exp.Star):
            return INT
        distinct = isinstance(node.this, exp.Distinct)
        scope.in_aggregate, scope.sorts_groups = True, scope.sorts_groups or distinct
        value = self.value(node.this.expressions[0] if distinct else node.this, scope)
        scope.in_aggregate = False
        if isinstance(node, exp.Count):
            value.node.replace(key(value).copy() if distinct else value.node)
            return INT
        if isinstance(node, exp.Sum | exp.Avg):
            value.node.replace(as_number(value).copy())
            kind = Type("decimal" if numeric(value.type).exact else "double", numeric(value.type).scale)
            kind = _quotient(kind) if isinstance(node, exp.Avg) else kind
            return kind if kind.exact else _own(node, "double", kind)
        if isinstance(node, exp.Min | exp.Max):
            return _own(node, "text", TEXT) if value.type == TEXT else value.type
        return TEXT if isinstance(node, exp.GroupConcat) else DOUBLE

    on_sum = on_avg = on_min = on_max = on_stddevpop = on_variancepop = on_groupconcat = on_count

    def on_window(self, node: Any, scope: Scope) -> Type:
        order = node.args.get("order")
        kind = self.value(node.this, scope).type
        for value in self.values([*node.args.get("partition_by", ()), *(item.this for item in order or ())], scope):
            value.node.replace(key(value).copy())
        return kind

    # --- subqueries, whose text takes their place

    def query(self, node: Any, outer: Scope | None, numbered: bool = False) -> Any:
        """Translate a query: `sql`, and `columns` called c1, c2 ... (see the subclass)."""
        raise AssertionError

    def on_subquery(self, node: Any, scope: Scope) -> Value:
        query = self._inner(node, scope)
        return Value(exp.Var(this=f"(SELECT only(c1) FROM ({query.sql}))"), query.columns[0].type)

    on_select = on_union = on_subquery

    def on_exists(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Var(this=f"EXISTS ({self.query(node.this, scope).sql})"), INT)

    def on_in(self, node: Any, scope: Scope) -> Value | Type:
        wanted, inner = node.this.unnest(), node.args.get("query")
        if inner is not None:
            return self._in_query(wanted.expressions if isinstance(wanted, exp.Tuple) else [wanted], inner, scope)
        if isinstance(wanted, exp.Tuple):
            return self._shared(node, scope)
        value, *items = self.values((node.this, *node.expressions), scope)
        pairs = [comparable(value, item) for item in items]
        return Value(exp.In(this=pairs[0][0].copy(), expressions=[item.copy() for _, item in pairs]), INT)

    def _in_query(self, wanted: Sequence[Any], inner: Any, scope: Scope) -> Value:
        if inner.unnest().args.get("limit"):
            raise SqlError("This version of MySQL doesn't yet support 'LIMIT & IN/ALL/ANY/SOME subquery'")
        query = self._inner(inner, scope, len(wanted))
        clause, scope.clause = scope.clause, IN_SUBQUERY if scope.clause == WHERE else scope.clause
        pairs = [comparable(*pair) for pair in zip(self.values(wanted, scope), query.columns, strict=True)]
        scope.clause = clause
        left, right = (", ".join(part.sql("sqlite") for part in side) for side in zip(*pairs, strict=True))
        return Value(exp.Var(this=f"(({left}) IN (SELECT {right} FROM ({query.sql})))"), INT)

    def _quantified(self, node: Any, scope: Scope) -> Value:
        """= ANY, > ALL and the like: a row for which the comparison holds, or none for which it does not."""
        query, value = self._inner(node.expression.this, scope), self.value(node.this, scope)
        test = self._compared(type(node), value, query.columns[0]).node.sql("sqlite")
        if isinstance(node.expression, exp.Any):
            return Value(exp.Var(this=f"EXISTS (SELECT 1 FROM ({query.sql}) WHERE {test})"), INT)
        return Value(exp.Var(this=f"NOT EXISTS (SELECT 1 FROM ({query.sql}) WHERE NOT coalesce({test}, 0))"), INT)

    def _inner(self, node: Any, scope: Scope, width: int = 1) -> Any:
        query = self.query(node, scope)
        if len(query.columns) != width:
            raise SqlError(f"Operand should contain {width} column(s)")
        return query


def _own(node: Any, suffix: str, kind: Type) -> Value | Type:
    """An aggregate function of ours in place of SQLite's. (Windows know only the latter.)"""
    if isinstance(node.parent, exp.Window):
        return kind
    return Value(exp.AnonymousAggFunc(this=f"{node.key}_{suffix}", expressions=[node.this]), kind)


def _quotient(kind: Type) -> Type:
    return number(kind.exact, None if kind.scale is None else kind.scale + _DIVISION_DIGITS)


def _unit(name: str) -> str:
    if name not in UNITS and name not in MONTHS:
        raise SqlError(f"This version of MySQL doesn't yet support 'INTERVAL {name}'")
    return name


def _must_hold(node: Any) -> bool:
    """Whether a comparison is one of those that AND joins to a WHERE or ON."""
    parent = node.parent
    while isinstance(parent, exp.And | exp.Paren):
        parent = parent.parent
    return isinstance(parent, exp.Where | exp.Join)
