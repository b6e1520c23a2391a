"""Translates expressions: resolves names, infers types, and writes what has another meaning in
SQLite so that it has MySQL's.

The method `on_KIND` translates the nodes of that kind of the grammar's tree. Functions are in
`calls`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from rro.intercode_sql.embedded.names import Scope
from rro.intercode_sql.embedded.operators import (
    BITS,
    among,
    as_decimal,
    as_moment,
    bitwise,
    calculated,
    compared,
    moved,
    negated,
)
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
    number,
)
from rro.intercode_sql.embedded.syntax import Node, Statement
from rro.intercode_sql.embedded.times import cast_moment
from rro.intercode_sql.embedded.values import (
    TEMPORAL,
    Query,
    Value,
    as_number,
    as_text,
    as_whole,
    call,
    cast,
    comparable,
    constant,
    joined,
    quoted,
    unified,
    unsupported,
)
from rro.intercode_sql.engine import TOO_DEEP, SqlError

# Characters of all translated expressions of a statement: what stands in it once may be copied.
MAX_WRITTEN = 5_000_000
_TYPES = {
    "SIGNED": INT,
    "UNSIGNED": UNSIGNED,
    "YEAR": INT,
    "DOUBLE": DOUBLE,
    "FLOAT": Type("float"),
}
_TYPES |= {"DATE": DATE, "DATETIME": DATETIME, "TIME": TIME, "BINARY": BYTES, "TIMESTAMP": DATETIME}
_CONSTANTS = {"NULL": Value("NULL", NULL), "TRUE": Value("1", INT), "FALSE": Value("0", INT)}
# How tight operators bind.
_LEVELS = {"^": 6, "*": 5, "/": 5, "DIV": 5, "%": 5, "MOD": 5, "+": 4, "-": 4, "<<": 3, ">>": 3}
_LEVELS |= {"&": 2, "|": 1, "AND": 3, "&&": 3, "XOR": 2, "OR": 1, "||": 1}


class Expressions:
    """Translates expressions of a statement. `database` is the one in use."""

    def __init__(self, statement: Statement, database: str) -> None:
        self.statement, self.database, self._written = statement, database, 0
        self.words = statement.own_words

    def query(self, node: Node, outer: Scope | None, source: bool = False) -> Query:
        """Translate a query (see `Queries`)."""
        raise AssertionError

    def value(self, node: Node, scope: Scope) -> Value:
        """Translate an expression. Raises SqlError if MySQL rejects it."""
        value: Value = getattr(self, f"on_{node.kind}", self._unsupported)(node, scope)
        self._written += len(value.sql)
        if self._written > MAX_WRITTEN:
            raise SqlError(TOO_DEEP)
        if scope.absent and value.sql in scope.absent and not scope.in_aggregate:
            return Value("NULL", value.type)
        return value

    def values(self, nodes: Iterable[Node], scope: Scope) -> list[Value]:
        """Translate several expressions."""
        return [self.value(node, scope) for node in nodes]

    def _unsupported(self, node: Node, scope: Scope) -> Value:
        raise unsupported(self.statement.source(node))

    def on_literal(self, node: Node, scope: Scope) -> Value:
        text, word = self.statement.token(node.first), self.statement.words[node.first]
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if word == "BINARY_LITERAL":
            digits = text.strip("'")[2:] if "'" not in text else text[2:-1]
            digits = digits if text[:2].upper() in ("0X", "X'") else f"{int(digits or '0', 2):X}"
            return Value(f"X'{'0' * (len(digits) % 2)}{digits}'", BYTES)
        text = text.rstrip(".")
        kind = DOUBLE if "e" in text.lower() else number(True, len(text.partition(".")[2]))
        if kind == INT and len(text) > 20:  # beyond 64 bits
            kind = Type("decimal", 0)
        return Value(text, kind, text=text)

    def on_text(self, node: Node, scope: Scope) -> Value:
        return constant("".join(map(self.statement.name, node.parts)))

    def on_moment(self, node: Node, scope: Scope) -> Value:
        word, text = self.statement.words[node.first], self.statement.name(node.parts[1])
        try:
            return Value(quoted(cast_moment(text, _TYPES[word].kind)), _TYPES[word], text=text)
        except (ValueError, OverflowError):
            raise SqlError(f"Incorrect {_TYPES[word].kind.upper()} value: '{text}'") from None

    def on_introduced(self, node: Node, scope: Scope) -> Value:
        number = node.parts[1]
        if self.statement.words[number] == "STRING":
            return constant(self.statement.name(number))
        return self.value(Node("literal", (number,), number, number + 1), scope)

    def on_name(self, node: Node, scope: Scope) -> Value:
        return scope.find(self.statement.path(node))

    def on_brackets(self, node: Node, scope: Scope) -> Value:
        return self.value(node.parts[1], scope)

    def on_row(self, node: Node, scope: Scope) -> Value:
        # What would use it as one value is an error of SQLite's.
        return Value("(SELECT 1, 2)", NULL, self.values(node.nodes(), scope), "row")

    def _climbed(
        self, node: Node, scope: Scope, combine: Callable[[str, Any, Any], Value]
    ) -> Value:
        """Apply the operators of a list of operands, those first that bind tighter."""
        values, signs = list[Any](), list[str]()
        for part in node.parts:
            if part.__class__ is Node:
                values.append(part if part.kind == "interval" else self.value(part, scope))
                continue
            sign = self.statement.token(part).upper()
            while signs and _LEVELS[signs[-1]] >= _LEVELS[sign]:
                values[-2:] = [combine(signs.pop(), *values[-2:])]
            signs.append(sign)
        while signs:
            values[-2:] = [combine(signs.pop(), *values[-2:])]
        return values[0]  # type: ignore[no-any-return]

    def on_expr(self, node: Node, scope: Scope) -> Value:
        def combine(sign: str, one: Value, other: Value) -> Value:
            if sign == "XOR":
                numbers = as_number(one).sql, as_number(other).sql
                return Value(call("my_xor", *numbers), INT, (one, other))
            return joined("AND" if sign in ("AND", "&&") else "OR", one, other, INT)

        return self._climbed(node, scope, combine)

    def on_sum(self, node: Node, scope: Scope) -> Value:
        def combine(sign: str, one: Any, other: Any) -> Value:
            if other.__class__ is Node and sign in "+-":
                return self.shifted(one, other, scope, -1 if sign == "-" else 1)
            if Node in (one.__class__, other.__class__):
                raise unsupported(self.statement.source(node))
            return bitwise(sign, one, other) if sign in BITS else calculated(sign, one, other)

        return self._climbed(node, scope, combine)

    def on_interval_sum(self, node: Node, scope: Scope) -> Value:
        if self.statement.token(node.parts[1]) == "-":
            raise unsupported(self.statement.source(node))
        return self.shifted(self.value(node.parts[2], scope), node.parts[0], scope, 1)

    def shifted(self, date: Value, interval: Node, scope: Scope, sign: int) -> Value:
        """A date plus `sign` times an interval."""
        _, amount, unit = interval.parts
        return moved(date, self.value(amount, scope), self.statement.words[unit], sign)

    def on_unary(self, node: Node, scope: Scope) -> Value:
        sign, value = self.statement.token(node.first).upper(), self.value(node.parts[1], scope)
        if sign == "-":
            one = as_number(value)
            kind = one.type if one.type.exact else Type("double", one.type.scale)
            text = f"-{one.text}" if one.text is not None and value.type == INT else None
            return Value(f"(-{one.sql})", kind, (value,), text=text)
        if sign == "~":
            return bitwise("~", value, Value("0", INT))
        if sign == "BINARY":
            return Value(cast(as_text(value), "BLOB"), BYTES, (value,))
        return negated(value) if sign == "!" else value

    def on_not(self, node: Node, scope: Scope) -> Value:
        return negated(self.value(node.parts[1], scope))

    def on_is(self, node: Node, scope: Scope) -> Value:
        value, words = self.value(node.parts[0], scope), self.words(node)
        if words[-1] in ("NULL", "UNKNOWN"):
            found = Value(f"({value.sql} IS NULL)", INT, (value,))
        else:
            found = Value(f"({as_number(value).sql} IS {words[-1]})", INT, (value,))
        return negated(found) if "NOT" in words else found

    def on_comparison(self, node: Node, scope: Scope) -> Value:
        left, sign, right = node.parts
        one, other = self.values((left, right), scope)
        return compared(self.statement.token(sign).replace("!=", "<>"), one, other)

    def on_quantified(self, node: Node, scope: Scope) -> Value:
        """A comparison with ANY or ALL rows of a query: the least, or the greatest, truth."""
        value, sign, which, inner = node.parts
        query = self._inner(inner, scope)
        if _limit(inner):
            raise _limited()
        holds = compared(
            self.statement.token(sign).replace("!=", "<>"),
            self.value(value, scope),
            query.columns[0],
        ).sql
        every = self.statement.words[which] == "ALL"
        chosen = f"min({holds}), 1" if every else f"max({holds}), 0"
        decided = f"{'min' if every else 'max'}({holds}) = {int(not every)}"
        return Value(
            f"(SELECT CASE WHEN {decided} OR count({holds}) = count(*) THEN coalesce({chosen}) END "
            f"FROM ({query.sql}))",
            INT,
        )

    def on_between(self, node: Node, scope: Scope) -> Value:
        values = value, low, high = self.values(node.nodes(), scope)
        (left, least), (other, most) = comparable(value, low), comparable(value, high)
        if left == other:
            found = Value(f"({left} BETWEEN {least} AND {most})", INT, values)
        else:
            found = Value(f"({left} >= {least} AND {other} <= {most})", INT, values)
        return negated(found) if "NOT" in self.words(node) else found

    def on_like(self, node: Node, scope: Scope) -> Value:
        """LIKE and REGEXP."""
        values, words = self.values(node.nodes(), scope), self.words(node)
        text, pattern, *escape = map(as_text, values)
        kinds, name = {values[0].type, values[1].type}, "like" if "LIKE" in words else "regexp"
        if not kinds.isdisjoint((BYTES, COLLATED)):
            if name == "regexp":
                pattern = f"('(?-i)' || {pattern})"
            else:
                name = "like_exactly"
        if escape and len(values[2].text or "") > 1:
            raise SqlError("Incorrect arguments to ESCAPE")
        found = Value(call(name, pattern, text, *escape), INT, values)
        return negated(found) if words[0] == "NOT" else found

    def on_sounds(self, node: Node, scope: Scope) -> Value:
        values = self.values(node.nodes(), scope)
        one, other = (call("my_soundex", as_text(value)) for value in values)
        return Value(f"({one} = {other})", INT, values)

    def on_collate(self, node: Node, scope: Scope) -> Value:
        value, name = self.value(node.parts[0], scope), self.statement.name(node.parts[2]).lower()
        if not re.fullmatch(r"(utf8mb4_\w+|binary)", name):
            raise SqlError(f"Unknown collation: '{name}'")
        kind = COLLATED if name.endswith(("_bin", "binary")) else TEXT
        if kind == value.type:
            return value
        return Value(as_text(value), kind, (value,))

    def on_case(self, node: Node, scope: Scope) -> Value:
        """CASE x WHEN y compares as x IN (y)."""
        branches = [part for part in node.nodes() if part.kind == "branch"]
        default = node.parts[-2] if "ELSE" in self.words(node) else None
        subject = None
        if node.parts[1] not in branches:
            subject = self.value(node.parts[1], scope)
        tests = [self.value(branch.parts[1], scope) for branch in branches]
        conditions = [test.sql if subject is None else among(subject, [test]).sql for test in tests]
        last = [default] if default is not None else []
        results = self.values([branch.parts[3] for branch in branches] + last, scope)
        shown, kind = unified(results)
        cases = [
            f"WHEN {condition} THEN {result}"
            for condition, result in zip(conditions, shown, strict=False)
        ]
        cases += [f"ELSE {shown[-1]}"] if last else []
        parts = [*([subject] if subject else []), *tests, *results]
        return Value(f"(CASE {' '.join(cases)} END)", kind, parts)

    def on_cast(self, node: Node, scope: Scope) -> Value:
        """CAST(x AS type) and CONVERT(x, type)."""
        value, end = self.value(node.parts[2], scope), node.parts[4]
        place, stop = (end, end + 1) if end.__class__ is int else (end.first, end.end)
        words = self.statement.words[place:stop]
        sizes = [
            self.statement.number(number)
            for number in range(place, stop)
            if self.statement.words[number] == "INTEGER"
        ]
        if "ARRAY" in self.words(node):
            raise unsupported(self.statement.source(node))
        if words[0] in ("DECIMAL", "DEC"):
            return as_decimal(value, *sizes)
        kind = BYTES if "BINARY" in words else _TYPES.get(words[0], TEXT)
        if kind in TEMPORAL:
            return as_moment(value, kind)
        if kind in (INT, UNSIGNED):
            return Value(as_whole(value), kind, (value,))
        if kind.kind in ("float", "double"):
            return Value(as_number(value).sql, kind, (value,))
        text = as_text(value)
        if kind == BYTES:
            return Value(cast(text, "BLOB"), BYTES, (value,))
        return Value(call("my_left", text, sizes[0]) if sizes else text, TEXT, (value,))

    def on_convert(self, node: Node, scope: Scope) -> Value:
        """CONVERT(x USING charset)."""
        value = self.value(node.parts[2], scope)
        if self.statement.name(node.parts[4]).lower() == "binary":
            return Value(cast(as_text(value), "BLOB"), BYTES, (value,))
        return Value(as_text(value), TEXT, (value,))

    def on_query_parens(self, node: Node, scope: Scope) -> Value:
        """A query as a value."""
        query = self._inner(node, scope)
        (one,) = query.columns
        sql, keys = (
            f"(SELECT only({name}, count(*)) FROM ({query.sql}))" if name else ""
            for name in (one.sql, one.stored_key)
        )
        return Value(sql, one.type, stored_key=keys)

    def on_exists(self, node: Node, scope: Scope) -> Value:
        return Value(f"(EXISTS ({self.query(node.parts[1], scope).sql}))", INT)

    def on_in_list(self, node: Node, scope: Scope) -> Value:
        value, *items = self.values(node.nodes(), scope)
        found = among(value, items)
        return negated(found) if "NOT" in self.words(node) else found

    def on_in_query(self, node: Node, scope: Scope) -> Value:
        wanted, inner = node.parts[0], node.parts[-1]
        if _limit(inner):
            raise _limited()
        while wanted.kind == "brackets":
            wanted = wanted.parts[1]
        nodes = wanted.nodes() if wanted.kind == "row" else [wanted]
        query = self._inner(inner, scope, len(nodes))
        values = self.values(nodes, scope)
        pairs = [comparable(*pair) for pair in zip(values, query.columns, strict=True)]
        left, right = (", ".join(side) for side in zip(*pairs, strict=True))
        found = Value(f"(({left}) IN (SELECT {right} FROM ({query.sql})))", INT, values)
        return negated(found) if "NOT" in self.words(node) else found

    def _inner(self, node: Node, scope: Scope, width: int = 1) -> Query:
        query = self.query(node, scope)
        if len(query.columns) != width:
            raise SqlError(f"Operand should contain {width} column(s)")
        return query


def _limit(node: Node) -> bool:
    """Whether a query in brackets has LIMIT."""
    while node.kind == "query_parens" and len(node.parts) == 3:
        node = node.parts[1]
    return node.part("limit") is not None


def _limited() -> SqlError:
    return unsupported("LIMIT & IN/ALL/ANY/SOME subquery")
