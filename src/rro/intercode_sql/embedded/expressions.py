"""Translates expressions: resolves names, infers types, and replaces what has another meaning in
SQLite.

The method `on_KEY` translates the nodes of SQLGlot with that key. Nodes with the same meaning in
both dialects need none, and functions are in `calls`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlglot import exp

from rro.intercode_sql.embedded import dates
from rro.intercode_sql.embedded.names import Scope, Value
from rro.intercode_sql.embedded.store import (
    BYTES,
    COLLATED,
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    NULL,
    TEXT,
    TIME,
    UNSIGNED,
    Type,
    common_type,
    number,
)
from rro.intercode_sql.embedded.values import (
    DAY_UNITS,
    FORMS,
    TEMPORAL,
    as_number,
    as_text,
    as_whole,
    call,
    comparable,
    quotient,
    unified,
)
from rro.intercode_sql.engine import TOO_DEEP, SqlError

_KINDS = {"INT": INT, "TINYINT": INT, "BIGINT": INT, "UBIGINT": UNSIGNED, "DOUBLE": DOUBLE}
_KINDS |= {"NULL": NULL, "DATE": DATE, "DATETIME": DATETIME, "TIMESTAMP": DATETIME, "TIME": TIME}
_KINDS |= {"TIMESTAMPTZ": DATETIME, "FLOAT": Type("float"), "REAL": DOUBLE, "YEAR": INT}
_SIGNS = {exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
_BITS = {"bitwiseand": "&", "bitwiseor": "|", "bitwisexor": "^", "bitwisenot": "~"}
_BITS |= {"bitwiseleftshift": "<", "bitwiserightshift": ">"}


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
        if isinstance(node, exp.Predicate | exp.Connector | exp.Not | exp.Boolean):
            return INT
        if isinstance(node, exp.Func):
            raise SqlError(f"FUNCTION {self.database}.{node.sql_name()} does not exist")
        return NULL if isinstance(node, exp.Null) else common_type(kinds)

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
        (left, least), (other, most) = comparable(value, low), comparable(value, high)
        if left == other:
            return Value(exp.Between(this=left, low=least, high=most), INT)
        return Value(
            exp.And(
                this=exp.GTE(this=left, expression=least),
                expression=exp.LTE(this=other, expression=most),
            ),
            INT,
        )

    def on_add(self, node: Any, scope: Scope) -> Value | Type:
        for interval, date in ((node.expression, node.this), (node.this, node.expression)):
            if isinstance(interval, exp.Interval):
                sign = -1 if isinstance(node, exp.Sub) else 1
                return self._shifted(self.value(date, scope), interval, scope, sign)
        one, other = map(as_number, self.values((node.this, node.expression), scope))
        kind = common_type((one.type, other.type))
        for side, value in (("this", one), ("expression", other)):
            if node.args[side] is not value.node:
                node.set(side, value.node.copy())
        if isinstance(node, exp.IntDiv | exp.Mod):
            name = "my_mod" if kind.exact else "my_fmod"
            name = "my_div" if isinstance(node, exp.IntDiv) else name
            return Value(call(name, one.node, other.node), INT if name == "my_div" else kind)
        if isinstance(node, exp.Div):
            return quotient(one.type if kind.exact else kind)
        if kind.kind == "decimal":
            scales = [value.type.scale or 0 for value in (one, other)]
            scale = min(30, sum(scales) if isinstance(node, exp.Mul) else max(scales))
            return Value(call("my_fixed", exp.paren(node.copy()), scale), Type("decimal", scale))
        return kind

    on_sub = on_mul = on_div = on_intdiv = on_mod = on_add

    def _shifted(self, date: Value, interval: Any, scope: Scope, sign: int) -> Value:
        """A date plus an interval."""
        unit = interval.args["unit"].name.upper() if interval.args.get("unit") else ""
        amount = self.value(interval.this, scope)
        literal = amount.node.is_string and re.fullmatch(r"-?\d*\.?\d+", amount.node.name)
        shown = exp.Literal.number(amount.node.name) if literal else amount.node
        kind = date.type if date.type in (DATE, DATETIME) else TEXT
        if kind == DATE and unit not in DAY_UNITS:
            kind = DATETIME
        return Value(call("my_shift", as_text(date), shown, unit, sign), kind)

    def on_neg(self, node: Any, scope: Scope) -> Value:
        value = as_number(self.value(node.this, scope))
        kind = value.type if value.type.exact else Type("double", value.type.scale)
        return Value(exp.Neg(this=exp.paren(value.node.copy())), kind)

    def on_bitwiseand(self, node: Any, scope: Scope) -> Value:
        values = [as_whole(value) for value in self.values(node.iter_expressions(), scope)]
        return Value(
            call("my_bits", _BITS[node.key], *values, *([0] if len(values) < 2 else ())), UNSIGNED
        )

    on_bitwiseor = on_bitwisexor = on_bitwisenot = on_bitwiseand
    on_bitwiseleftshift = on_bitwiserightshift = on_bitwiseand

    def on_xor(self, node: Any, scope: Scope) -> Value:
        values = self.values(node.iter_expressions(), scope)
        return Value(call("my_xor", *(as_number(value).node for value in values)), INT)

    def on_like(self, node: Any, scope: Scope) -> Type:
        for side in ("this", "expression"):
            value = self.value(node.args[side], scope)
            if (text := as_text(value)) is not value.node:
                node.set(side, text.copy())
        return INT

    on_regexplike = on_like

    def on_hexstring(self, node: Any, scope: Scope) -> Value:
        text = node.this if isinstance(node, exp.HexString) else f"{int(node.this or '0', 2):X}"
        return Value(exp.HexString(this="0" * (len(text) % 2) + text), BYTES)

    on_bitstring = on_hexstring

    def on_introducer(self, node: Any, scope: Scope) -> Value:
        return self.value(node.expression, scope)

    def on_national(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(node.name), TEXT)

    def on_collate(self, node: Any, scope: Scope) -> Value:
        value, name = self.value(node.this, scope), node.expression.name.lower()
        if not re.fullmatch(r"(utf8mb4_\w+|binary)", name):
            raise SqlError(f"Unknown collation: '{name}'")
        return Value(as_text(value), COLLATED if name.endswith(("_bin", "binary")) else TEXT)

    def on_case(self, node: Any, scope: Scope) -> Type:
        """CASE x WHEN y is written as CASE WHEN x IN (y), which compares exactly."""
        # A nested CASE would be copied into every branch.
        if node.this is not None and node.this.find(exp.Case):
            raise SqlError("This version of MySQL doesn't yet support 'CASE CASE'")
        if node.this is not None and len(list(node.this.walk())) * len(node.args["ifs"]) > 4000:
            raise SqlError(TOO_DEEP)
        for branch in node.args["ifs"] if node.this is not None else ():
            branch.set("this", exp.In(this=node.this.copy(), expressions=[branch.this]))
        node.set("this", None)
        for branch in node.args["ifs"]:
            self.value(branch.this, scope)
        last = [node.args["default"]] if node.args.get("default") is not None else []
        results = self.values([branch.args["true"] for branch in node.args["ifs"]] + last, scope)
        nodes, kind = unified(results)
        for value, shown in zip(results, nodes, strict=True):
            if shown is not value.node:
                value.node.replace(shown.copy())
        return kind

    def on_cast(self, node: Any, scope: Scope) -> Value:
        value, to = self.value(node.this, scope), node.args["to"]
        kind = _KINDS.get(to.this.name, TEXT)
        sizes = [int(size.name) for size in to.expressions if size.name.isdigit()]
        if to.this.name == "DECIMAL":
            digits, scale = (*sizes, 10, 0)[:2] if len(sizes) != 1 else (sizes[0], 0)
            if digits > 65 or scale > min(30, digits):
                raise SqlError(f"Too-big precision {digits} specified. Maximum is 65.")
            cast = call("my_cast_decimal", as_number(value).node, digits or 10, scale)
            return Value(cast, Type("decimal", scale))
        if kind in TEMPORAL:
            return Value(call("my_cast_moment", FORMS["h"](value), kind.kind), kind)
        if kind in (INT, UNSIGNED):
            return Value(as_whole(value), kind)
        if kind.kind in ("float", "double"):
            return Value(as_number(value).node, kind)
        if to.this.name in ("BINARY", "VARBINARY") or to.args.get("kind") == exp.var("binary"):
            return Value(exp.cast(as_text(value), "blob"), BYTES)
        text = as_text(value)
        return Value(call("my_left", text, sizes[0]) if sizes else text, TEXT)

    def on_currentdate(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(dates.TODAY), DATE)

    def on_currenttime(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(dates.NOON), TIME)

    def on_currenttimestamp(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(f"{dates.TODAY} {dates.NOON}"), DATETIME)

    on_localtime = on_localtimestamp = on_currenttimestamp

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
            return Value(_in(value, items), INT)
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


def _in(value: Value, items: Iterable[Value]) -> Any:
    """value IN (items). Each item is compared by its own type."""
    pairs = [comparable(value, item) for item in items]
    if all(left == pairs[0][0] for left, _ in pairs):
        return exp.In(this=pairs[0][0], expressions=[item for _, item in pairs])
    return exp.paren(exp.or_(*(exp.In(this=left, expressions=[item]) for left, item in pairs)))


def _compared(sign: Any, one: Value, other: Value) -> Value:
    left, right = comparable(one, other)
    kinds, scales = (one.type, other.type), (one.type.scale, other.type.scale)
    numbers = all(kind.exact or kind.kind in ("float", "double") for kind in kinds)
    fixed = None not in scales and not all(kind.exact for kind in kinds)
    if numbers and fixed and one.type != other.type and sign in _SIGNS:
        return Value(call("my_exactly", _SIGNS[sign], left, right, max(map(int, scales))), INT)  # type: ignore[arg-type]
    return Value(sign(this=left, expression=right), INT)


def _must_hold(node: Any) -> bool:
    """Whether a comparison is a condition of WHERE or ON by itself, or joined by AND."""
    parent = node.parent
    while isinstance(parent, exp.And | exp.Paren):
        parent = parent.parent
    return isinstance(parent, exp.Where | exp.Join)
