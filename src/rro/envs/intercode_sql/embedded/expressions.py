"""Expressions of a statement: names resolved, types inferred, written in SQLite's SQL. In MySQL's order of resolution, so
that of several mistakes the same one is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlglot import exp

from rro.envs.intercode_sql.embedded import aggregates, calls, dates
from rro.envs.intercode_sql.embedded.calls import call, canonical, choice
from rro.envs.intercode_sql.embedded.names import HAVING, IN_SUBQUERY, WHERE, Block, Expr, Query, made
from rro.envs.intercode_sql.embedded.schema import Kind, Type
from rro.envs.intercode_sql.embedded.syntax import Node, SqlError, called
from rro.envs.intercode_sql.embedded.values import (
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    NULL,
    TEXT,
    TIME,
    arithmetic,
    as_number,
    as_text,
    comparable,
    compared,
    number_literal,
    number_type,
    string,
    text_literal,
    truth,
)

_SIGNS: Mapping[type[Node], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.NullSafeEQ: "IS",
}  # fmt: skip
_ARITHMETIC: Mapping[type[Node], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.IntDiv: "DIV", exp.Mod: "%",
}  # fmt: skip
_CASTS = {
    exp.DType.CHAR: TEXT, exp.DType.NCHAR: TEXT, exp.DType.BINARY: BYTES, exp.DType.VARBINARY: BYTES, exp.DType.DATE: DATE,
    exp.DType.DATETIME: DATETIME, exp.DType.TIMESTAMP: DATETIME, exp.DType.TIMESTAMPTZ: DATETIME, exp.DType.TIME: TIME,
    exp.DType.DOUBLE: DOUBLE, exp.DType.FLOAT: Type(Kind.FLOAT), exp.DType.YEAR: INT,
}  # fmt: skip
_WHOLE = frozenset({exp.DType.BIGINT, exp.DType.UBIGINT, exp.DType.INT, exp.DType.UINT})
_NOW: Mapping[type[Node], str] = {exp.CurrentDate: "CURDATE", exp.CurrentTime: "CURTIME", exp.CurrentUser: "USER"}
_FOREIGN_TO_ALIASES = (
    "field list",
    WHERE,
    "on clause",
    IN_SUBQUERY,
)  # places where no name of the select list is known


class Expressions:
    """Translates expressions; `subquery` translates the queries in them."""

    def __init__(self, database: str, subquery: Callable[[Node, Block], Query]) -> None:
        self._database, self._subquery = database, subquery

    def translate(self, node: Any, block: Block) -> Expr:
        """One expression with one value. Raises SqlError."""
        method = _METHODS.get(type(node))
        if method is None:
            raise _unsupported(type(node).__name__.upper())
        return method(self, node, block)

    # --- leaves

    def _literal(self, node: Any, block: Block) -> Expr:
        return text_literal(node.this) if node.is_string else number_literal(node.this)

    def _constant(self, node: Any, block: Block) -> Expr:
        if isinstance(node, exp.Boolean):
            return number_literal(str(int(node.this)))
        return Expr("NULL", NULL, constant=True)

    def _digits(self, node: Any, block: Block) -> Expr:
        return number_literal(str(int(node.this, 2 if isinstance(node, exp.BitString) else 16)))

    def _adjacent(self, node: Any, block: Block) -> Expr:
        """'a' 'b' is one text."""
        return text_literal("".join(str(piece.this) for piece in node.expressions))

    def _column(self, node: Any, block: Block) -> Expr:
        name, table = node.name, node.table
        database = node.args["db"].name if node.args.get("db") else ""
        if isinstance(node.this, exp.Star):
            raise SqlError(_columns_error(1))
        if block.place == HAVING and not block.inside_aggregate:
            found = block.selected(name, table) or block.grouped(name, table)
            if found is None and block.own(name, table, database, block.place) is not None:
                written = ".".join(part for part in (database, table, name) if part)
                raise SqlError(f"Unknown column '{written}' in '{HAVING}'")
        elif table or block.place in _FOREIGN_TO_ALIASES:
            found = None
        else:
            found = block.own(name, table, database, block.place) or block.selected(name)
        return found or block.column(name, table, database)

    def _paren(self, node: Any, block: Block) -> Expr:
        return self.translate(node.this, block)

    # --- operators

    def _both(self, node: Any, block: Block) -> tuple[Expr, Expr]:
        return self.translate(node.this, block), self.translate(node.expression, block)

    def _logical(self, node: Any, block: Block) -> Expr:
        """AND and OR, however long the chain."""
        word = " AND " if isinstance(node, exp.And) else " OR "
        operands = [self.translate(operand, block) for operand in node.flatten(unnest=False)]
        return made("(" + word.join(map(truth, operands)) + ")", INT, *operands)

    def _xor(self, node: Any, block: Block) -> Expr:
        one, other = self._both(node, block)
        return made(f"(({truth(one)} <> 0) <> ({truth(other)} <> 0))", INT, one, other)

    def _not(self, node: Any, block: Block) -> Expr:
        operand = self.translate(node.this, block)
        return made(f"(NOT {truth(operand)})", INT, operand)

    def _negative(self, node: Any, block: Block) -> Expr:
        operand = self.translate(node.this, block)
        return made(f"(- {as_number(operand)})", number_type(operand), operand)

    def _arithmetic(self, node: Any, block: Block) -> Expr:
        if isinstance(node.expression, exp.Interval):
            return self._moved(node.this, node.expression, -1 if isinstance(node, exp.Sub) else 1, block)
        if isinstance(node.this, exp.Interval):
            return self._moved(node.expression, node.this, 1, block)
        return arithmetic(_ARITHMETIC[type(node)], *self._both(node, block))

    def _comparison(self, node: Any, block: Block) -> Expr:
        if isinstance(node.expression, exp.All | exp.Any):
            if isinstance(node, exp.EQ) and isinstance(node.expression, exp.Any):
                return self._in_subquery(node.this, node.expression.this, block)
            if isinstance(node, exp.NEQ) and isinstance(node.expression, exp.All):
                inside = self._in_subquery(node.this, node.expression.this, block)
                return made(f"(NOT {inside.sql})", INT, inside)
            return self._quantified(node, block)
        if _width(node.this) > 1:
            return self._rows_compared(_SIGNS[type(node)], node.this, node.expression, block)
        return compared(_SIGNS[type(node)], *self._both(node, block))

    def _rows_compared(self, sign: str, one: Any, other: Any, block: Block) -> Expr:
        mine, theirs = self._row(one, block), self._row(other, block)
        if len(mine) != len(theirs) or sign not in ("=", "<>", "IS"):
            raise SqlError(_columns_error(len(mine)))
        pairs = [compared(sign, *pair) for pair in zip(mine, theirs, strict=True)]
        return made("(" + (" OR " if sign == "<>" else " AND ").join(pair.sql for pair in pairs) + ")", INT, *pairs)

    def _row(self, node: Any, block: Block) -> list[Expr]:
        return [self.translate(item, block) for item in (node.expressions if _width(node) > 1 else [node])]

    def _is(self, node: Any, block: Block) -> Expr:
        operand = self.translate(node.this, block)
        if isinstance(node.expression, exp.Null):
            return made(f"({operand.sql} IS NULL)", INT, operand)
        return made(f"(coalesce({truth(operand)} {'<> 0' if node.expression.this else '= 0'}, 0))", INT, operand)

    def _like(self, node: Any, block: Block) -> Expr:
        escape = string("\\")
        if isinstance(node, exp.Escape):
            escape, node = self.translate(node.expression, block).sql, node.this
        one, pattern = self._both(node, block)
        binary = int(Kind.BYTES in (one.type.kind, pattern.type.kind))
        test = f"like_text({as_text(one)}, {as_text(pattern)}, {escape}, {binary})"
        return made(f"(NOT {test})" if node.args.get("negate") else test, INT, one, pattern)

    def _regexp(self, node: Any, block: Block) -> Expr:
        one, pattern = self._both(node, block)
        binary = int(Kind.BYTES in (one.type.kind, pattern.type.kind))
        return made(f"regexp_found({as_text(one)}, {as_text(pattern)}, {binary})", INT, one, pattern)

    def _between(self, node: Any, block: Block) -> Expr:
        value, low, high = (self.translate(node.args[part], block) for part in ("this", "low", "high"))
        sql = f"({compared('>=', value, low).sql} AND {compared('<=', value, high).sql})"
        return made(sql, INT, value, low, high)

    def _in(self, node: Any, block: Block) -> Expr:
        if node.args.get("query") is not None:
            return self._in_subquery(node.this, node.args["query"], block)
        if _width(node.this) > 1:
            tests = [self._rows_compared("=", node.this, item, block) for item in node.expressions]
        else:
            value = self.translate(node.this, block)
            items = [self.translate(item, block) for item in node.expressions]
            pairs = [comparable(value, item) for item in items]
            if len({left for left, _ in pairs}) == 1:
                return made(f"({pairs[0][0]} IN ({', '.join(right for _, right in pairs)}))", INT, value, *items)
            tests = [compared("=", value, item) for item in items]
        return made("(" + " OR ".join(test.sql for test in tests) + ")", INT, *tests)

    # --- subqueries; MySQL resolves them before what stands to their left

    def _inner(self, node: Any, block: Block, width: int) -> Query:
        query = self._subquery(node, block)
        if len(query.columns) != width:
            raise SqlError(_columns_error(width))
        return query

    def _left(self, node: Any, block: Block) -> list[Expr]:
        place, block.place = block.place, IN_SUBQUERY if block.place == WHERE else block.place
        try:
            return self._row(node, block)
        finally:
            block.place = place

    def _in_subquery(self, wanted: Any, subquery: Any, block: Block) -> Expr:
        wanted = wanted.unnest() if isinstance(wanted, exp.Paren) else wanted
        query = self._inner(subquery, block, _width(wanted))
        mine = self._left(wanted, block)
        pairs = [comparable(one, _column_of(query, place)) for place, one in enumerate(mine)]
        lefts, rights = ", ".join(left for left, _ in pairs), ", ".join(right for _, right in pairs)
        return made(f"(({lefts}) IN (SELECT {rights} FROM ({query.sql}) AS q))", INT, *mine)

    def _quantified(self, node: Any, block: Block) -> Expr:
        """< ANY, > ALL and the like: over the rows of a subquery, the least or the greatest of the comparisons."""
        query = self._inner(node.expression.this, block, 1)
        left = self._left(node.this, block)[0]
        test = compared(_SIGNS[type(node)], left, _column_of(query, 0)).sql
        least, empty = ("min", 1) if isinstance(node.expression, exp.All) else ("max", 0)
        decided = f"coalesce({least}({test}), {empty})"
        unknown = f"CASE WHEN count(*) > count({test}) AND {decided} = {empty} THEN NULL ELSE {decided} END"
        return made(f"(SELECT {unknown} FROM ({query.sql}) AS q)", INT, left)

    def _scalar(self, node: Any, block: Block) -> Expr:
        query = self._inner(node, block, 1)
        sql = query.sql if query.one_row else f"SELECT one_value(c1) FROM ({query.sql})"
        return Expr(f"({sql})", query.columns[0][1].type)

    def _exists(self, node: Any, block: Block) -> Expr:
        return Expr(f"EXISTS ({self._subquery(node.this, block).sql})", INT)

    # --- choices, casts and calls

    def _case(self, node: Any, block: Block) -> Expr:
        subject = self.translate(node.this, block) if node.this is not None else None
        cases, tested = [], [subject] if subject else []
        for branch in node.args["ifs"]:
            test = self.translate(branch.this, block)
            tested.append(test)
            wanted = truth(test) if subject is None else compared("=", subject, test).sql
            cases.append((wanted, self.translate(branch.args["true"], block)))
        default = node.args.get("default")
        otherwise = self.translate(default, block) if default is not None else Expr("NULL", NULL, constant=True)
        return choice(cases, otherwise, *tested)

    def _cast(self, node: Any, block: Block) -> Expr:
        operand, sort = self.translate(node.this, block), node.args["to"].this
        sizes = [int(size.name) for size in node.args["to"].expressions if size.name.isdigit()]
        number = as_number(operand)
        if sort in _WHOLE:  # a text up to its first character that is no digit, a number rounded
            whole = operand.sql if operand.type.kind is Kind.TEXT else f"rounded({number}, 0, 1)"
            return made(f"CAST({whole} AS INTEGER)", INT, operand)
        if sort in (exp.DType.DECIMAL, exp.DType.UDECIMAL):
            scale = min(sizes[1] if len(sizes) > 1 else 0, 30)
            return made(f"rounded({number}, {scale}, 1)", Type(Kind.DECIMAL, scale), operand)
        if sort not in _CASTS:
            raise _unsupported(f"CAST AS {sort.name}")
        kind = _CASTS[sort]
        if kind.numeric:
            return made(f"CAST({number} AS {'INTEGER' if kind is INT else 'REAL'})", kind, operand)
        if kind.temporal:
            return made(f"to_{kind.kind}({as_text(operand)})", kind, operand)
        return made(f"substring({as_text(operand)}, 1, {sizes[0]})" if sizes else as_text(operand), kind, operand)

    def _collate(self, node: Any, block: Block) -> Expr:
        operand = self.translate(node.this, block)
        return made(as_text(operand), BYTES if node.expression.name.lower().endswith("_bin") else TEXT, operand)

    def _trim(self, node: Any, block: Block) -> Expr:
        operand = self.translate(node.this, block)
        piece = self.translate(node.expression, block) if node.expression is not None else text_literal(" ")
        where = string(str(node.args.get("position") or "BOTH").upper())
        return made(f"stripped({as_text(operand)}, {as_text(piece)}, {where})", TEXT, operand, piece)

    def _shaped(self, node: Any, block: Block) -> Expr:
        """Functions with a syntax of their own."""
        name, parts = _SHAPES[type(node)]
        given = [node.args[part] for part in parts if node.args.get(part) is not None]
        return call(name, [self.translate(part, block) for part in given], self._database)

    def _today(self, node: Any, block: Block) -> Expr:
        return call(_NOW.get(type(node), "NOW"), [], self._database)

    def _extract(self, node: Any, block: Block) -> Expr:
        return call(_unit(node.this.name), [self.translate(node.expression, block)], self._database)

    def _moved(self, moment: Any, interval: Any, sign: int, block: Block) -> Expr:
        operand, amount = self.translate(moment, block), self.translate(interval.this, block)
        unit = _unit(interval.unit.name if interval.unit is not None else "")
        kind = operand.type if operand.type.temporal else TEXT
        if kind.kind is Kind.DATE and unit in ("HOUR", "MINUTE", "SECOND"):
            kind = DATETIME
        sql = f"date_plus({as_text(operand)}, {as_number(amount)}, {string(unit)}, {sign})"
        return made(sql, kind, operand, amount)

    def _call(self, node: Any, block: Block) -> Expr:
        name, operands = canonical(called(node)), node.expressions
        if name in calls.AGGREGATES:
            return aggregates.aggregate(self.translate, name, operands, block)
        if name in calls.WINDOWED:
            raise SqlError(f"You cannot use the window function '{name.lower()}' in this context.'")
        if name == "ROW":
            return self._tuple(node, block)
        if name in calls.DATE_ARITHMETIC:
            return self._date_arithmetic(name, operands, block)
        given = [self.translate(operand, block) for operand in operands]
        return arithmetic("%", *given) if name == "MOD" and len(given) == 2 else call(name, given, self._database)

    def _date_arithmetic(self, name: str, operands: Sequence[Any], block: Block) -> Expr:
        if name in ("DATE_ADD", "DATE_SUB") and len(operands) == 2:
            moment, interval = operands
            if not isinstance(interval, exp.Interval):
                interval = exp.Interval(this=interval, unit=exp.Var(this="DAY"))
            return self._moved(moment, interval, 1 if name == "DATE_ADD" else -1, block)
        if name == "TIMESTAMPDIFF" and len(operands) == 3:
            unit = string(_unit(operands[0].name))
            one, other = self.translate(operands[1], block), self.translate(operands[2], block)
            return made(f"date_difference({unit}, {as_text(one)}, {as_text(other)})", INT, one, other)
        raise calls.wrong_count(name)

    def _tuple(self, node: Any, block: Block) -> Expr:
        raise SqlError(_columns_error(1))

    def _group_concat(self, node: Any, block: Block) -> Expr:
        return aggregates.group_concat(self.translate, node, block)

    def _window(self, node: Any, block: Block) -> Expr:
        return aggregates.window(self.translate, node, block)


def _unsupported(what: str) -> SqlError:
    return SqlError(f"This version of MySQL doesn't yet support '{what}'")


def _columns_error(width: int) -> str:
    return f"Operand should contain {width} column(s)"


def _unit(name: str) -> str:
    if name.upper() not in dates.UNITS:
        raise _unsupported(f"INTERVAL {name.upper()}")
    return name.upper()


def _width(node: Any) -> int:
    """How many values an operand has."""
    is_row = isinstance(node, exp.Tuple) or (isinstance(node, exp.Anonymous) and called(node) == "ROW")
    return len(node.expressions) if is_row else 1


def _column_of(query: Query, place: int) -> Expr:
    return Expr(f"q.c{place + 1}", query.columns[place][1].type)


_SHAPES: Mapping[type[Node], tuple[str, tuple[str, ...]]] = {
    exp.If: ("IF", ("this", "true", "false")),
    exp.Substring: ("SUBSTRING", ("this", "start", "length")),
    exp.StrPosition: ("LOCATE", ("substr", "this")),
}
_METHODS: Mapping[type[Node], Callable[[Expressions, Any, Block], Expr]] = {
    exp.Literal: Expressions._literal,
    exp.Concat: Expressions._adjacent,
    exp.Column: Expressions._column,
    exp.Paren: Expressions._paren,
    exp.Xor: Expressions._xor,
    exp.Not: Expressions._not,
    exp.Neg: Expressions._negative,
    exp.Is: Expressions._is,
    exp.RegexpLike: Expressions._regexp,
    exp.Between: Expressions._between,
    exp.In: Expressions._in,
    exp.Exists: Expressions._exists,
    exp.Case: Expressions._case,
    exp.Cast: Expressions._cast,
    exp.Collate: Expressions._collate,
    exp.Trim: Expressions._trim,
    exp.Extract: Expressions._extract,
    exp.Tuple: Expressions._tuple,
    exp.Anonymous: Expressions._call,
    exp.GroupConcat: Expressions._group_concat,
    exp.Window: Expressions._window,
    **dict.fromkeys((exp.Null, exp.Boolean, exp.Parameter), Expressions._constant),
    **dict.fromkeys((exp.HexString, exp.BitString), Expressions._digits),
    **dict.fromkeys((exp.And, exp.Or), Expressions._logical),
    **dict.fromkeys((exp.Like, exp.Escape), Expressions._like),
    **dict.fromkeys((exp.Subquery, exp.Select), Expressions._scalar),
    **dict.fromkeys((exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.CurrentUser), Expressions._today),
    **dict.fromkeys(_SIGNS, Expressions._comparison),
    **dict.fromkeys(_ARITHMETIC, Expressions._arithmetic),
    **dict.fromkeys(_SHAPES, Expressions._shaped),
}
