"""Translates calls of functions, aggregates and windows. The method `_NAME` translates the function
of that name, whose result is `special` in the table of `library`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rro.intercode_sql.embedded import dates
from rro.intercode_sql.embedded.expressions import Expressions
from rro.intercode_sql.embedded.library import AGGREGATES, ROUTINES, SIGNATURES
from rro.intercode_sql.embedded.names import GROUP, ON, WHERE, Scope
from rro.intercode_sql.embedded.operators import calculated, moved
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
from rro.intercode_sql.embedded.syntax import Node
from rro.intercode_sql.embedded.values import (
    DAY_UNITS,
    FORMS,
    RESULTS,
    Value,
    as_number,
    as_text,
    as_whole,
    call,
    cast,
    common_forms,
    comparable,
    constant,
    key,
    quoted,
    quotient,
    result_type,
    unified,
    unsupported,
)
from rro.intercode_sql.engine import SqlError

_UNITS = DAY_UNITS | {"HOUR", "MINUTE", "SECOND", "MICROSECOND"}
# Other names of functions.
_SAME = {"POSITION": "LOCATE", "SCHEMA": "DATABASE", "IFNULL": "COALESCE"}


class Calls(Expressions):
    """Translates expressions with functions."""

    def on_function(self, node: Node, scope: Scope) -> Value:
        """A function of the table."""
        name = self.statement.name(node.first).upper()
        name, operands = _SAME.get(name, name), node.nodes()
        if name not in SIGNATURES:
            raise unsupported(self.statement.source(node))
        forms, _, _, result = SIGNATURES[name]
        if result == "special":
            special: Value = getattr(self, f"_{name.lower()}")(node, operands, scope)
            return special
        if f"my_{name.lower()}" not in ROUTINES:
            raise unsupported(self.statement.source(node))
        values = self.values(operands, scope)
        forms += forms[-1:] * (len(values) - len(forms))
        pairs = list(zip(values, forms, strict=False))
        common = common_forms([value for value, form in pairs if form == "c"])
        shown = [next(common) if form == "c" else FORMS[form](value) for value, form in pairs]
        if name == "ROUND" and not as_number(values[0]).type.exact:
            name = "ROUND_REAL"
        return Value(call(f"my_{name.lower()}", *shown), result_type(result, values), values)

    def on_stored(self, node: Node, scope: Scope) -> Value:
        database, _, name, *_ = node.parts
        of = f"{self.statement.name(database)}.{self.statement.name(name)}"
        raise SqlError(f"FUNCTION {of} does not exist")

    def on_trim(self, node: Node, scope: Scope) -> Value:
        values, words = self.values(node.nodes(), scope), self.words(node)
        *pieces, text = map(as_text, values)
        side = next((word for word in words if word in ("LEADING", "TRAILING")), "BOTH")
        sql = call("my_trim", text, *(pieces or [quoted(" ")]), quoted(side))
        return Value(sql, TEXT, values)

    def on_char(self, node: Node, scope: Scope) -> Value:
        values = self.values(node.nodes(), scope)
        char = call("my_char", *map(as_whole, values))
        if "USING" in self.words(node):
            return Value(cast(char, "TEXT"), TEXT, values)
        return Value(char, BYTES, values)

    def on_extract(self, node: Node, scope: Scope) -> Value:
        value, unit = self.value(node.parts[4], scope), self.statement.words[node.parts[2]]
        return Value(call("my_extract", as_text(value), quoted(unit)), INT, (value,))

    def on_get_format(self, node: Node, scope: Scope) -> Value:
        forms = {"USA": "%m.%d.%Y", "EUR": "%d.%m.%Y", "INTERNAL": "%Y%m%d"}
        style = self.value(node.parts[4], scope).text or ""
        return constant(forms.get(style.upper(), "%Y-%m-%d"))

    def _if(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        values = self.values(operands, scope)
        (yes, no), kind = unified(values[1:])
        test = as_number(values[0]).sql
        return Value(f"(CASE WHEN {test} THEN {yes} ELSE {no} END)", kind, values)

    def _coalesce(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        values = self.values(operands, scope)
        (first, *rest), kind = unified(values)
        return Value(call("coalesce", first, *rest) if rest else first, kind, values)

    def _nullif(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        one, other = self.values(operands, scope)
        sql = call("my_nullif", one.sql, *comparable(one, other))
        return Value(sql, one.type, (one, other))

    def _regexp_like(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        """It, and other functions of a text and a pattern."""
        values, name = self.values(operands, scope), self._called(node).lower()
        text, pattern, *rest = map(as_text, values)
        number = name in ("regexp_like", "regexp_instr")
        routine = "regexp" if name == "regexp_like" else name
        return Value(call(routine, pattern, text, *rest), INT if number else TEXT, values)

    _regexp_instr = _regexp_substr = _regexp_replace = _regexp_like

    def _mod(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        return calculated("MOD", *self.values(operands, scope))

    def _database(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        return constant(self.database)

    def _date_add(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        sign = -1 if "SUB" in self._called(node) else 1
        date, amount = operands
        value = self.value(date, scope)
        if amount.kind == "interval":
            return self.shifted(value, amount, scope, sign)
        return moved(value, self.value(amount, scope), "DAY", sign)

    _date_sub = _adddate = _subdate = _date_add

    def _called(self, node: Node) -> str:
        return self.statement.name(node.first).upper()

    def _addtime(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        one, other = self.values(operands, scope)
        kind = one.type if one.type in (DATETIME, TIME) else TEXT
        name = f"my_{self._called(node).lower()}"
        return Value(call(name, as_text(one), as_text(other)), kind, (one, other))

    _subtime = _addtime

    def _timestampadd(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        amount, date = self.values(operands, scope)
        return moved(date, amount, self._unit(node), 1)

    def _timestampdiff(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        values = self.values(operands, scope)
        sql = call("my_timestampdiff", quoted(self._unit(node)), *map(as_text, values))
        return Value(sql, INT, values)

    def _unit(self, node: Node) -> str:
        unit: str = self.statement.words[node.parts[2]]
        if unit not in _UNITS:
            raise unsupported(self.statement.source(node))
        return unit

    def _from_unixtime(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        values = self.values(operands, scope)
        forms = [as_number(values[0]).sql, *map(as_text, values[1:])]
        return Value(call("my_from_unixtime", *forms), TEXT if values[1:] else DATETIME, values)

    def _str_to_date(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        values = self.values(operands, scope)
        form = values[1].text
        kind = "datetime" if form is None else dates.format_kind(form)
        return Value(call("my_str_to_date", *map(as_text, values)), RESULTS[kind], values)

    def _grouping(self, node: Node, operands: Sequence[Node], scope: Scope) -> Value:
        absent, scope.absent = scope.absent, set()
        value = self.value(operands[0], scope)
        scope.absent = absent
        return Value(f"({int(value.sql in absent)})", INT, (value,))

    def on_aggregate(self, node: Node, scope: Scope) -> Value:
        name, over = self._called(node), node.part("over")
        argument, distinct = node.parts[2], False
        if argument.__class__ is Node and argument.kind in ("summed", "counted"):
            distinct = self.statement.words[argument.first] == "DISTINCT"
            argument = argument.parts[1]
        if name not in (*AGGREGATES, "COUNT", "SUM", "AVG", "MIN", "MAX"):
            raise unsupported(self.statement.source(node))
        self._begin(scope, over)
        if argument.__class__ is int and self.statement.words[argument] == "ALL":
            argument = node.parts[3]
        if argument.__class__ is int:
            return self._over(Value("count(*)", INT, (), "aggregate"), over, scope)
        scope.sorts = scope.sorts or distinct
        operands = argument.nodes() if argument.kind == "exprs" else [argument]
        values = self._operands(operands, scope)
        return self._over(_aggregated(name, values, distinct), over, scope)

    def _begin(self, scope: Scope, over: Node | None) -> None:
        if scope.in_aggregate or scope.clause in (WHERE, ON, GROUP):
            raise SqlError("Invalid use of group function")
        scope.aggregated |= over is None

    def _operands(self, nodes: Sequence[Node], scope: Scope) -> list[Value]:
        """The translated operands of an aggregate."""
        scope.in_aggregate = True
        values = self.values(nodes, scope)
        scope.in_aggregate = False
        return values

    def on_group_concat(self, node: Node, scope: Scope) -> Value:
        order, over, words = node.part("order"), node.part("over"), self.words(node)
        self._begin(scope, over)
        parts = node.part("exprs")
        values = self._operands(parts.nodes() if parts else [], scope)
        ways, sorts = "", list[Value]()
        for item, way in self.order_items(order):
            place = self.place(item)
            listed = values[place - 1] if place and 0 < place <= len(values) else None
            sorts.append(listed or self._operands([item], scope)[0])
            ways += "d" if way else "a"
        texts = [as_text(value) for value in values]
        text = texts[0] if len(texts) == 1 else call("my_concat", *texts)
        first = values[0] if len(values) == 1 else Value(text, TEXT)
        joint = ","
        if "SEPARATOR" in words:
            joint = self.statement.name(node.parts[-2 if over is None else -3])
        shown = [quoted(joint), str(int("DISTINCT" in words)), quoted(ways), text, key(first)]
        sql = call("my_group_concat", *shown, *map(key, sorts))
        return self._over(Value(sql, TEXT, (*values, *sorts), "aggregate"), over, scope)

    def order_items(self, order: Node | None) -> list[tuple[Node, str]]:
        """The items of ORDER BY, each with its direction."""
        return [
            (item.parts[0], " DESC" if "DESC" in self.words(item) else "")
            if item.kind == "order_item"
            else (item, "")
            for item in (order.nodes() if order else ())
        ]

    def place(self, node: Node) -> int | None:
        """The place in a list that an item of ORDER BY or GROUP BY stands for, or None."""
        is_integer = node.kind == "literal" and self.statement.words[node.first] == "INTEGER"
        return self.statement.number(node.first) if is_integer else None

    def on_windowed(self, node: Node, scope: Scope) -> Value:
        """A function for windows alone."""
        name, over = self._called(node), node.part("over")
        operands = [part for part in node.nodes() if part.kind not in ("over", "nulls", "nth_from")]
        values = self.values(operands, scope)
        kind = DOUBLE if name in ("PERCENT_RANK", "CUME_DIST") else INT
        if name in ("LAG", "LEAD", "FIRST_VALUE", "LAST_VALUE", "NTH_VALUE"):
            kind = unified([values[0], *values[2:]])[1] if len(values) > 2 else values[0].type
        sql = call(name.lower(), *(value.sql for value in values))
        return self._over(Value(sql, kind, values), over, scope)

    def _over(self, value: Value, over: Node | None, scope: Scope) -> Value:
        """A function with its window, if it has one."""
        if over is None:
            return value
        window = over.parts[1]
        named = window if window.__class__ is int else window.parts[1]
        clauses = {} if window.__class__ is int else _clauses(window)
        if named.__class__ is int and self.statement.words[named] not in ("PARTITION", ")"):
            name = self.statement.name(named).lower()
            if name not in scope.named_windows:
                raise SqlError(f"Window name '{name}' is not defined.")
            clauses = _clauses(scope.named_windows[name]) | clauses
        return self._windowed(value, clauses, scope)

    def _windowed(self, value: Value, clauses: dict[str, Node], scope: Scope) -> Value:
        groups, order = clauses.get("exprs"), clauses.get("order")
        parts = self.values(groups.nodes() if groups else (), scope)
        items = self.order_items(order)
        sorts = self.values([item for item, _ in items], scope)
        keys = list(map(key, sorts))
        shown = [f"PARTITION BY {', '.join(map(key, parts))}"] if parts else []
        ordered = [f"{one}{way}" for one, (_, way) in zip(keys, items, strict=True)]
        shown += [f"ORDER BY {', '.join(ordered)}"] if ordered else []
        if frame := clauses.get("frame"):
            if any(word == "INTERVAL" for word in self.statement.words[frame.first : frame.end]):
                raise unsupported(self.statement.source(frame))
            shown.append(self.statement.source(frame))
        ways = ["" for _ in parts] + [way for _, way in items]
        values = [*parts, *sorts]
        scope.windows = [
            (one._replace(sql=key(one), type=INT), way)
            for one, way in zip(values, ways, strict=True)
        ]
        return Value(f"({value.sql} OVER ({' '.join(shown)}))", value.type, (*value.parts, *values))


def _clauses(window: Node) -> dict[str, Node]:
    """The clauses of a window's specification: exprs, order and frame."""
    return {part.kind: part for part in window.parts if part.__class__ is Node}


def _aggregated(name: str, values: Sequence[Value], distinct: bool) -> Value:
    """An aggregate. Texts are counted and compared by collation."""
    value, once = values[0], "DISTINCT " if distinct else ""
    one = as_number(value)
    if name in AGGREGATES:
        own = AGGREGATES[name]
        if own.startswith("bit"):
            return Value(call(own, as_whole(value)), UNSIGNED, values, "aggregate")
        scale = None if one.type.scale is None else one.type.scale + 4
        return Value(call(own, one.sql), Type("double", scale), values, "aggregate")
    if len(values) > 1:
        return Value(call("count_rows", *map(key, values)), INT, values, "aggregate")
    if name == "AVG":
        return Value(f"avg({once}{one.sql})", quotient(one.type), values, "aggregate")
    if name == "SUM":
        kind = Type("decimal" if one.type.exact else "double", one.type.scale)
        return Value(f"sum({once}{one.sql})", kind, values, "SUM")
    if name == "COUNT":
        counted = key(value) if distinct else value.sql
        return Value(f"count({once}{counted})", INT, values, "aggregate")
    sorting = " COLLATE general_ci" if value.type == TEXT else ""
    return Value(call(name.lower(), f"{once}{value.sql}{sorting}"), value.type, values, "aggregate")
