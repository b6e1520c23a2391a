"""Translates calls of functions, aggregates and windows. The method `_NAME` translates the function
of that name, whose result is `special` in the table of `library`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from sqlglot import exp

from rro.intercode_sql.embedded import dates
from rro.intercode_sql.embedded.expressions import Expressions
from rro.intercode_sql.embedded.library import AGGREGATES, SIGNATURES, WINDOWS
from rro.intercode_sql.embedded.names import GROUP, ON, WHERE, Scope, Value
from rro.intercode_sql.embedded.store import (
    BYTES,
    DATETIME,
    DOUBLE,
    INT,
    TEXT,
    TIME,
    UNSIGNED,
    Type,
)
from rro.intercode_sql.embedded.values import (
    DAY_UNITS,
    FORMS,
    RESULTS,
    aggregate,
    as_number,
    as_text,
    as_whole,
    call,
    common_forms,
    comparable,
    key,
    literal,
    quotient,
    result_type,
    unified,
)
from rro.intercode_sql.engine import SqlError

_UNITS = DAY_UNITS | {"HOUR", "MINUTE", "SECOND", "MICROSECOND"}


class Calls(Expressions):
    """Translates expressions with functions."""

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
        common = common_forms(
            value for value, form in zip(values, forms, strict=False) if form == "c"
        )
        nodes = [
            FORMS[form](value) if form != "c" else next(common)
            for value, form in zip(values, forms, strict=False)
        ]
        if name == "ROUND" and not as_number(values[0]).type.exact:
            name = "ROUND_REAL"
        return Value(call(f"my_{name.lower()}", *nodes), result_type(result, values))

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
        return Value(call("my_str_to_date", as_text(text), as_text(form)), RESULTS[kind])

    def _get_format(self, node: Any, scope: Scope) -> Value:
        forms = {"USA": "%m.%d.%Y", "EUR": "%d.%m.%Y", "INTERNAL": "%Y%m%d"}
        found = forms.get(node.expressions[1].name.upper(), "%Y-%m-%d")
        return Value(exp.Literal.string(found), TEXT)

    def _grouping(self, node: Any, scope: Scope) -> Value:
        value = self.value(node.expressions[0], scope)
        return Value(call("my_grouping", value.node), INT)

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
            return Value(aggregate("count_rows", *map(key, values)), INT)
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
                return quotient(one.type)
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
            return Value(aggregate(name, as_whole(value)), UNSIGNED)
        one = as_number(value)
        scale = None if one.type.scale is None else one.type.scale + 4
        return Value(aggregate(name, one.node), Type("double", scale))

    def on_groupconcat(self, node: Any, scope: Scope) -> Value:
        inner, order = node.this, []
        if isinstance(inner, exp.Order):
            order, inner = inner.expressions, inner.this
        distinct = isinstance(inner, exp.Distinct)
        parts = inner.expressions if distinct else [inner]
        ways = "".join("d" if item.args.get("desc") else "a" for item in order)
        places = [(literal(item.this) or 0, item.this) for item in order]
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
        concat = aggregate("my_group_concat", joint, int(distinct), ways, text, *keys)
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


def _count_error(name: str) -> SqlError:
    return SqlError(f"Incorrect parameter count in the call to native function '{name}'")


def _unit(node: Any) -> str:
    unit = str(node.name.upper().removeprefix("SQL_TSI_"))
    if unit not in _UNITS:
        raise SqlError(
            "You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
            f"server version for the right syntax to use near '{node.name}'"
        )
    return unit
