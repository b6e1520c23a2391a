"""Translates expressions: resolves names, infers types, and replaces what has another meaning in
SQLite.

The method `on_KEY` translates the nodes of SQLGlot with that key. Nodes with the same meaning in
both dialects need none, and SQLGlot translates functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from sqlglot import exp

from rro.intercode_sql.embedded import dates, functions
from rro.intercode_sql.embedded.library import AGGREGATES, SIGNATURES, WINDOWS
from rro.intercode_sql.embedded.names import GROUP, ON, WHERE, Scope, Value
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
from rro.intercode_sql.engine import TOO_DEEP, SqlError

_KINDS = {"INT": INT, "TINYINT": INT, "BIGINT": INT, "UBIGINT": UNSIGNED, "DOUBLE": DOUBLE}
_KINDS |= {"NULL": NULL, "DATE": DATE, "DATETIME": DATETIME, "TIMESTAMP": DATETIME, "TIME": TIME}
_KINDS |= {"TIMESTAMPTZ": DATETIME, "FLOAT": Type("float"), "REAL": DOUBLE, "YEAR": INT}
_RESULTS = {"int": INT, "double": DOUBLE, "text": TEXT, "bytes": BYTES, "date": DATE, "time": TIME}
_RESULTS |= {"datetime": DATETIME, "pi": Type("double", 6)}
_TEMPORAL = (DATE, DATETIME, TIME)
_DAY_UNITS = {"DAY", "WEEK", "MONTH", "QUARTER", "YEAR", "YEAR_MONTH"}
_UNITS = _DAY_UNITS | {"HOUR", "MINUTE", "SECOND", "MICROSECOND"}
_SIGNS = {exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
_BITS = {"bitwiseand": "&", "bitwiseor": "|", "bitwisexor": "^", "bitwisenot": "~"}
_BITS |= {"bitwiseleftshift": "<", "bitwiserightshift": ">"}


def call(name: str, *operands: Any) -> Any:
    """A call of a function of SQLite. Operands are nodes, texts or integers."""
    nodes = [exp.convert(part) if isinstance(part, str | int) else part.copy() for part in operands]
    return exp.Anonymous(this=name, expressions=nodes)


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
    if value.type in (TEXT, BYTES, COLLATED):
        return Value(exp.cast(value.node, "real"), DOUBLE)
    if value.type in _TEMPORAL:
        return Value(call("my_stamp", value.node), INT)
    return Value(value.node, INT if value.type in (NULL, UNSIGNED) else value.type)


def as_text(value: Value) -> Any:
    """The node of the value as text."""
    kind, scale = value.type
    if kind in ("decimal", "float", "double"):
        if scale is None:
            return call("my_real_text", value.node, 6 if kind == "float" else 17)
        return call("my_fixed_text", value.node, scale)
    return exp.cast(value.node, "text") if value.type in (INT, UNSIGNED, BYTES) else value.node


def as_whole(value: Value) -> Any:
    """The node of the value as an integer: numbers are rounded, texts cut."""
    if value.type in (INT, UNSIGNED, NULL):
        return value.node
    if value.type in (TEXT, BYTES):
        return call("my_cast_text", value.node)
    one = as_number(value)
    return call("my_whole" if one.type.exact else "my_cast_real", one.node)


def unified(values: Iterable[Value]) -> tuple[list[Any], Type]:
    """The nodes of values that are alternatives, such as the results of CASE, and their type."""
    values = list(values)
    kind = common_type(value.type for value in values)
    return [as_text(value) if kind == TEXT else value.node for value in values], kind


def comparable(one: Value, other: Value) -> list[Any]:
    """Two values in forms that SQLite compares as MySQL does: texts by collation, dates as dates,
    everything else as numbers."""
    kinds = {one.type, other.type} - {NULL}
    if kinds <= {TEXT}:
        return [key(one), key(other)]
    if kinds <= {TEXT, BYTES, COLLATED} and kinds & {BYTES, COLLATED}:
        return [exp.cast(value.node, "blob") for value in (one, other)]
    if not kinds <= {TEXT, *_TEMPORAL}:
        return [as_number(one).node, as_number(other).node]
    if TIME in kinds:
        return [call("my_time", value.node) for value in (one, other)]
    days = DATETIME not in kinds and all(
        len(value.node.name) <= 10 for value in (one, other) if value.node.is_string
    )
    kind, name = (DATE, "my_date") if days else (DATETIME, "my_timestamp")
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
            return _quotient(one.type if kind.exact else kind)
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
        if kind == DATE and unit not in _DAY_UNITS:
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
        if kind in _TEMPORAL:
            return Value(call("my_cast_moment", _FORMS["h"](value), kind.kind), kind)
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

    # --- functions

    def on_anonymous(self, node: Any, scope: Scope) -> Value | Type:
        """A function: one of the table, an aggregate, or one for windows."""
        name, count = node.name.strip().upper(), len(node.expressions)
        special = getattr(self, f"_{name.lower()}", None)
        if name in AGGREGATES or name in WINDOWS:
            least, most = WINDOWS.get(name, (1, 1))
        elif name in SIGNATURES:
            least, most = SIGNATURES[name][1:3]
        else:
            raise SqlError(f"FUNCTION {self.database}.{name} does not exist")
        if not least <= count <= most:
            raise _count_error(name)
        if name in AGGREGATES:
            return self._spread(AGGREGATES[name], node, scope)
        if name in WINDOWS:
            return self._window_function(name, node, scope)
        forms, _, _, result = SIGNATURES[name]
        if result == "special" and special is not None:
            return cast("Value", special(node, scope))
        values = self.values(node.expressions, scope)
        forms += forms[-1:] * (count - len(forms))
        common = _common_forms(
            value for value, form in zip(values, forms, strict=False) if form == "c"
        )
        nodes = [
            _FORMS[form](value) if form != "c" else next(common)
            for value, form in zip(values, forms, strict=False)
        ]
        if name == "ROUND" and not as_number(values[0]).type.exact:
            name = "ROUND_REAL"
        return Value(call(f"my_{name.lower()}", *nodes), _result(result, values))

    def on_substring(self, node: Any, scope: Scope) -> Value:
        return self._alias("SUBSTRING", node, scope, "this", "start", "length")

    def on_strposition(self, node: Any, scope: Scope) -> Value:
        return self._alias("LOCATE", node, scope, "substr", "this")

    def _alias(self, name: str, node: Any, scope: Scope, *parts: str) -> Value:
        """A function with a syntax of its own, as a call of the table's."""
        operands = [node.args[part] for part in parts if node.args.get(part) is not None]
        plain = exp.Anonymous(this=name, expressions=operands)
        node.replace(plain)
        return self.value(plain, scope)

    def on_concat(self, node: Any, scope: Scope) -> Value:
        return Value(call("my_concat", *map(as_text, self.values(node.expressions, scope))), TEXT)

    def on_trim(self, node: Any, scope: Scope) -> Value:
        piece = node.args.get("expression")
        values = self.values([node.this, *([piece] if piece is not None else [])], scope)
        side = str(node.args.get("position") or "BOTH").upper()
        nodes = [as_text(value) for value in values] + (
            [exp.Literal.string(" ")] if piece is None else []
        )
        return Value(call("my_trim", *nodes, side), TEXT)

    def on_chr(self, node: Any, scope: Scope) -> Value:
        values = [as_whole(value) for value in self.values(node.expressions, scope)]
        char = call("my_char", *values)
        return (
            Value(exp.cast(char, "text"), TEXT) if node.args.get("charset") else Value(char, BYTES)
        )

    def on_extract(self, node: Any, scope: Scope) -> Value:
        text = as_text(self.value(node.expression, scope))
        return Value(call("my_extract", text, node.name.upper()), INT)

    def _if(self, node: Any, scope: Scope) -> Value:
        condition, *results = self.values(node.expressions, scope)
        (yes, no), kind = unified(results)
        test = as_number(condition).node
        return Value(
            exp.Case(ifs=[exp.If(this=test.copy(), true=yes.copy())], default=no.copy()), kind
        )

    def _coalesce(self, node: Any, scope: Scope) -> Value:
        (first, *rest), kind = unified(self.values(node.expressions, scope))
        return Value(call("coalesce", first, *rest) if rest else first, kind)

    _ifnull = _coalesce

    def _nullif(self, node: Any, scope: Scope) -> Value:
        one, other = self.values(node.expressions, scope)
        return Value(call("my_nullif", one.node, *comparable(one, other)), one.type)

    def _mod(self, node: Any, scope: Scope) -> Value:
        one, other = node.expressions
        plain = exp.Mod(this=one, expression=other)
        node.replace(plain)
        return self.value(plain, scope)

    def _database(self, node: Any, scope: Scope) -> Value:
        return Value(exp.Literal.string(self.database), TEXT)

    _schema = _database

    def _date_add(self, node: Any, scope: Scope) -> Value:
        date, interval = node.expressions
        if not isinstance(interval, exp.Interval):
            if "ADDDATE" not in node.name and "SUBDATE" not in node.name:
                raise _count_error(node.name.strip())
            interval.replace(exp.Interval(this=interval.copy(), unit=exp.var("DAY")))
            interval = node.expressions[1]
        sign = -1 if "SUB" in node.name else 1
        return self._shifted(self.value(date, scope), interval, scope, sign)

    _date_sub = _adddate = _subdate = _date_add

    def _addtime(self, node: Any, scope: Scope) -> Value:
        one, other = self.values(node.expressions, scope)
        kind = one.type if one.type in (DATETIME, TIME) else TEXT
        return Value(call(f"my_{node.name.strip().lower()}", as_text(one), as_text(other)), kind)

    _subtime = _addtime

    def _timestampadd(self, node: Any, scope: Scope) -> Value:
        unit, amount, date = node.expressions
        interval = exp.Interval(this=amount.copy(), unit=exp.var(_unit(unit)))
        amount.replace(interval)
        return self._shifted(self.value(date, scope), interval, scope, 1)

    def _timestampdiff(self, node: Any, scope: Scope) -> Value:
        unit, *both = node.expressions
        one, other = self.values(both, scope)
        return Value(call("my_timestampdiff", _unit(unit), as_text(one), as_text(other)), INT)

    def _from_unixtime(self, node: Any, scope: Scope) -> Value:
        value, *form = self.values(node.expressions, scope)
        nodes = [as_number(value).node, *map(as_text, form)]
        return Value(call("my_from_unixtime", *nodes), TEXT if form else DATETIME)

    def _str_to_date(self, node: Any, scope: Scope) -> Value:
        text, form = self.values(node.expressions, scope)
        kind = dates.format_kind(form.node.name) if form.node.is_string else "datetime"
        return Value(call("my_str_to_date", as_text(text), as_text(form)), _RESULTS[kind])

    def _get_format(self, node: Any, scope: Scope) -> Value:
        forms = {"USA": "%m.%d.%Y", "EUR": "%d.%m.%Y", "INTERNAL": "%Y%m%d"}
        found = forms.get(node.expressions[1].name.upper(), "%Y-%m-%d")
        return Value(exp.Literal.string(found), TEXT)

    def _grouping(self, node: Any, scope: Scope) -> Value:
        value = self.value(node.expressions[0], scope)
        return Value(call("my_grouping", value.node), INT)

    # --- aggregates and windows

    def on_count(self, node: Any, scope: Scope) -> Value | Type:
        """COUNT, SUM, AVG, MIN and MAX."""
        if isinstance(node.this, exp.Star):
            self._begin(node, scope)
            return INT
        distinct = isinstance(node.this, exp.Distinct)
        scope.sorts = scope.sorts or distinct
        parts = node.this.expressions if distinct else [node.this]
        values = self._operands(node, parts, scope)
        if len(values) > 1:
            return Value(_aggregate("count_rows", *map(key, values)), INT)
        return self._aggregate(node, values[0], distinct)

    on_sum = on_avg = on_min = on_max = on_count

    def _begin(self, node: Any, scope: Scope) -> None:
        if scope.in_aggregate or scope.clause in (WHERE, ON, GROUP):
            raise SqlError("Invalid use of group function")
        scope.aggregated |= not isinstance(node.parent, exp.Window)

    def _operands(self, node: Any, parts: Iterable[Any], scope: Scope) -> list[Value]:
        """The translated operands of an aggregate."""
        self._begin(node, scope)
        scope.in_aggregate = True
        values = self.values(parts, scope)
        scope.in_aggregate = False
        return values

    def _aggregate(self, node: Any, value: Value, distinct: bool) -> Type:
        """The type of an aggregate. Texts are counted and compared by collation."""
        one = as_number(value)
        if isinstance(node, exp.Avg | exp.Sum):
            if one.node is not value.node:
                value.node.replace(one.node.copy())
            if isinstance(node, exp.Avg):
                return _quotient(one.type)
            return Type("decimal" if one.type.exact else "double", one.type.scale)
        if isinstance(node, exp.Count):
            if distinct:
                value.node.replace(key(value).copy())
            return INT
        if value.type == TEXT:
            collation = exp.Var(this="general_ci")
            value.node.replace(exp.Collate(this=value.node.copy(), expression=collation))
        return value.type

    def _spread(self, name: str, node: Any, scope: Scope) -> Value:
        """An aggregate that SQLite lacks."""
        (value,) = self._operands(node, node.expressions, scope)
        if name.startswith("bit"):
            return Value(_aggregate(name, as_whole(value)), UNSIGNED)
        one = as_number(value)
        scale = None if one.type.scale is None else one.type.scale + 4
        return Value(_aggregate(name, one.node), Type("double", scale))

    def on_groupconcat(self, node: Any, scope: Scope) -> Value:
        inner, order = node.this, []
        if isinstance(inner, exp.Order):
            order, inner = inner.expressions, inner.this
        distinct = isinstance(inner, exp.Distinct)
        parts = inner.expressions if distinct else [inner]
        ways = "".join("d" if item.args.get("desc") else "a" for item in order)
        places = [(_literal(item.this) or 0, item.this) for item in order]
        sorts = [parts[n - 1].copy() if 0 < n <= len(parts) else item for n, item in places]
        for (_, item), sort in zip(places, sorts, strict=True):
            if item is not sort:
                item.replace(sort)
        values = self._operands(node, [*parts, *sorts], scope)
        texts = [as_text(value) for value in values[: len(parts)]]
        text = texts[0] if len(texts) == 1 else call("my_concat", *texts)
        first = values[0]._replace(node=text, type=TEXT) if len(texts) > 1 else values[0]
        keys = [key(first), *map(key, values[len(parts) :])]
        joint = node.args.get("separator") or exp.Literal.string(",")
        concat = _aggregate("my_group_concat", joint, int(distinct), ways, text, *keys)
        return Value(concat, TEXT)

    def on_window(self, node: Any, scope: Scope) -> Type:
        select = node.find_ancestor(exp.Select)
        for window in select.args.get("windows") or () if node.alias else ():
            if window.name.lower() == node.alias.lower():
                for part in ("partition_by", "order", "spec"):
                    found = window.args.get(part)
                    copied = (
                        [item.copy() for item in found]
                        if isinstance(found, list)
                        else found and found.copy()
                    )
                    node.set(part, copied)
                node.set("alias", None)
        kind = self.value(node.this, scope).type
        parts = list(node.args.get("partition_by") or ())
        items = list(node.args["order"].expressions) if node.args.get("order") else []
        ways = [""] * len(parts) + [" DESC" if item.args.get("desc") else "" for item in items]
        values = self.values(parts + [item.this for item in items], scope)
        for value in values:
            if (sorted_by := key(value)) is not value.node:
                value.node.replace(sorted_by.copy())
        scope.windows = [
            (value._replace(node=key(value).copy(), type=INT), way)
            for value, way in zip(values, ways, strict=True)
        ]
        return kind

    def _window_function(self, name: str, node: Any, scope: Scope) -> Value:
        if not isinstance(node.parent, exp.Window):
            raise SqlError(f"You must use OVER with the function '{name}'")
        values = self.values(node.expressions, scope)
        kind = DOUBLE if name in ("PERCENT_RANK", "CUME_DIST") else INT
        if name[:3] in ("LAG", "LEA", "FIR", "LAS", "NTH"):
            kind = unified([values[0], *values[2:]])[1] if len(values) > 2 else values[0].type
        return Value(call(name.lower(), *(value.node for value in values)), kind)

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


def _count_error(name: str) -> SqlError:
    return SqlError(f"Incorrect parameter count in the call to native function '{name}'")


def _aggregate(name: str, *operands: Any) -> Any:
    """A call of an aggregate of SQLite."""
    return exp.AnonymousAggFunc(this=name, expressions=call(name, *operands).expressions)


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


_FORMS: dict[str, Callable[[Value], Any]] = {
    "t": as_text,
    "d": as_text,
    "h": lambda value: call("my_timestamp", value.node) if value.type == DATE else as_text(value),
    "n": lambda value: as_number(value).node,
    "i": as_whole,
    "v": lambda value: value.node,
}


def _common_forms(values: Iterable[Value]) -> Iterator[Any]:
    """The nodes of values that a function compares with each other."""
    values = list(values)
    texts = all(value.type in (TEXT, BYTES, COLLATED, NULL, *_TEMPORAL) for value in values)
    return iter([value.node if texts else as_number(value).node for value in values])


def _result(name: str, values: list[Value]) -> Type:
    """The type of a function's result."""
    if name in _RESULTS:
        return _RESULTS[name]
    if name == "common":
        kinds = [value.type for value in values]
        kind = common_type(kinds)
        numbers = any(one.exact or one.kind in ("float", "double") for one in kinds)
        return DOUBLE if kind == TEXT and numbers else kind
    kind = as_number(values[0]).type
    if name == "first":
        return kind
    if name == "floor":
        wide = values[0].node.find(exp.Sum) is not None
        return DOUBLE if not kind.exact else Type("decimal", 0) if wide and kind != INT else INT
    places = _literal(values[1].node) if len(values) > 1 else 0
    if kind == INT:
        return INT
    if places is None:
        return kind
    return Type("decimal" if kind.exact else "double", max(0, min(30, places)))


def _literal(node: Any) -> int | None:
    """The value of a literal integer, or None."""
    sign, inner = (-1, node.this.unnest()) if isinstance(node, exp.Neg) else (1, node)
    return sign * int(inner.name) if inner.is_int else None


def _unit(node: Any) -> str:
    unit = str(node.name.upper().removeprefix("SQL_TSI_"))
    if unit not in _UNITS:
        raise SqlError(
            "You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
            f"server version for the right syntax to use near '{node.name}'"
        )
    return unit


def _quotient(kind: Type) -> Type:
    """The type of a division or an average: with four more digits after the point."""
    return number(kind.exact, None if kind.scale is None else kind.scale + 4)


def _must_hold(node: Any) -> bool:
    """Whether a comparison is a condition of WHERE or ON by itself, or joined by AND."""
    parent = node.parent
    while isinstance(parent, exp.And | exp.Paren):
        parent = parent.parent
    return isinstance(parent, exp.Where | exp.Join)
