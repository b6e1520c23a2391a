"""Translates SELECTs, subqueries and set operations to SQLite's SQL, with the rows in MySQL's
order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.names import Scope, Source, Value
from rro.intercode_sql.embedded.order import reading_order
from rro.intercode_sql.embedded.sources import QUERY_PARTS, Sources
from rro.intercode_sql.embedded.store import TEXT, common_type
from rro.intercode_sql.embedded.values import Query, alias_of, as_text, column_of, key, sql_of
from rro.intercode_sql.engine import SqlError

# Columns of all SELECTs of one statement.
MAX_COLUMNS = 4096
# Added to the row numbers of the second query of a set operation.
_SECOND = 1 << 40
_text = MySQL().generator().generate


class Queries(Sources):
    """Translates one statement: `nodes` are those of its tree, `database` is the one in use. Raises
    SqlError if a table does not exist."""

    def query(self, node: Any, outer: Scope | None = None, numbered: bool = False) -> Query:
        """Translate a query in the scope `outer`; `numbered` asks for row numbers. Raises SqlError
        if MySQL rejects it."""
        if isinstance(node, exp.Subquery):
            return self._sorted(self.query(node.this, outer, True), node, outer, numbered)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer, numbered)
        return self._select(node, outer, numbered)

    def _select(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        scope, distinct, limit = Scope(outer), node.args.get("distinct"), _limit(node)
        self._open(node, scope)
        self._select_list(node, scope)
        self._condition(node.args.get("where"), names.WHERE, scope)
        self._join_conditions(scope)
        self._group(node, scope)
        self._condition(node.args.get("having"), names.HAVING, scope)
        order = self._order(node, scope)
        single = self._check(node, scope, [value.node for value, _ in order])
        order += [(group, "") for group in scope.groups if scope.sorts]
        order = order or ([] if numbered else scope.windows)
        keys = [sql_of(key(value)) + way for value, way in order if not scope.is_fixed(value.node)]
        keys = [] if single else keys + reading_order(scope)
        for part in (*QUERY_PARTS, "distinct", "windows", "operation_modifiers"):
            node.set(part, None)
        output = list(enumerate(scope.output, 1))
        columns = [alias_of(value.node, f"c{n}") for n, value in output]
        rollup = node.args.get("group") is not None and scope.rollup
        numbers = [exp.Var(this=_number(keys))] if (numbered or distinct) and not rollup else []
        node.set("expressions", columns + numbers)
        result = [value._replace(node=column_of(f"c{n}")) for n, value in output]
        if rollup:
            order = [(value, way) for value, way in order if not scope.is_fixed(value.node)]
            return self._rolled_up(node, scope, order, (limit, numbered, distinct), result)
        if distinct:
            return self._grouped(Query(sql_of(node), result), [], limit, numbered, "")
        return Query(f"{sql_of(node)}{_order_by(keys)}{limit}", result)

    def _rolled_up(
        self, node: Any, scope: Scope, order: list[Any], how: tuple[str, bool, Any], result: Any
    ) -> Query:
        """WITH ROLLUP: one query for each number of groups, in which the others are NULL. The rows
        are in the order of the groups, the totals of a group behind it, unless ORDER BY is set."""
        limit, numbered, distinct = how
        groups, queries = scope.groups, list[str]()
        for count in range(len(groups), -1, -1):
            level = node.copy()
            extra = [alias_of(value.node, f"o{n}") for n, (value, _) in enumerate(order)]
            level.set("expressions", level.expressions + extra)
            absent = {value.node for value in groups[count:]} | {
                key(value) for value in groups[count:]
            }
            for part in [*level.expressions, *filter(None, [level.args.get("having")])]:
                _without(part, absent)
            marks = [
                f"{sql_of(key(value)) if n < count else 'NULL'} AS g{n}, {int(n >= count)} AS h{n}"
                for n, value in enumerate(groups)
            ]
            level.set("expressions", level.expressions + [exp.Var(this=mark) for mark in marks])
            keys = [key(value).copy() for value in groups[:count]]
            level.set("group", exp.Group(expressions=keys or [exp.Null()]))
            queries.append(sql_of(level))
        keys = [f"o{n}{way}" for n, (_, way) in enumerate(order)]
        keys += [f"{mark}{n}" for n in range(len(groups)) for mark in "hg"]
        columns = ", ".join(value.node.name for value in result)
        shown = f", {_number(keys)}" if numbered or distinct else ""
        sql = f"SELECT {columns}{shown} FROM ({' UNION ALL '.join(queries)})"
        if distinct:
            return self._grouped(Query(sql, result), [], limit, numbered, "")
        return Query(f"{sql}{_order_by(keys)}{limit}", result)

    def _select_list(self, node: Any, scope: Scope) -> None:
        for item in list(node.expressions):
            if item.is_star:
                scope.output += self._star(
                    item if isinstance(item, exp.Column) else exp.Column(this=item), scope
                )
            else:
                value = self.value(item.this if isinstance(item, exp.Alias) else item, scope)
                scope.output.append(value._replace(name=item.alias_or_name or _text(item)))
            if self._columns + len(scope.output) > MAX_COLUMNS:
                raise SqlError("Too many columns")
        self._columns += len(scope.output)

    def _star(self, node: Any, scope: Scope) -> Iterator[Value]:
        merged, sources = {} if node.table else scope.merged, scope.named(node)
        yield from merged.values()
        for source in sources:
            source.used.update(source.columns)
            yield from (column for name, column in source.columns.items() if name not in merged)
        if not sources:
            name = ".".join(part.name for part in node.parts[:-1])
            raise SqlError(f"Unknown table '{name}'" if name else "No tables used")

    def _condition(self, clause: Any, name: str, scope: Scope) -> None:
        scope.clause = name
        if clause is not None:
            self.value(clause.this, scope)

    def _group(self, node: Any, scope: Scope) -> None:
        group, scope.clause = node.args.get("group"), names.GROUP
        if group is not None:
            scope.groups = [self._listed(item, scope) for item in group.expressions]
            keys = [key(value).copy() for value in scope.groups if not scope.is_fixed(value.node)]
            scope.rollup = bool(group.args.get("rollup"))
            node.set("group", exp.Group(expressions=keys or [exp.Null()]))

    def _order(self, node: Any, scope: Scope) -> list[tuple[Value, str]]:
        order, scope.clause = node.args.get("order"), names.ORDER
        items = order.expressions if order is not None else ()
        return [
            (self._listed(item.this, scope), " DESC" if item.args.get("desc") else "")
            for item in items
        ]

    def _listed(self, node: Any, scope: Scope) -> Value:
        """An item of GROUP BY or ORDER BY. A number is a position in the select list; in ORDER BY,
        a name refers to the select list first."""
        if node.is_int and 1 <= int(node.name) <= len(scope.output):
            return scope.output[int(node.name) - 1]
        if node.is_int:
            raise SqlError(f"Unknown column '{node.name}' in '{scope.clause}'")
        bare = scope.clause == names.ORDER and isinstance(node, exp.Column) and not node.table
        return (scope.selected(node.name.lower()) if bare else None) or self.value(node, scope)

    def _check(self, node: Any, scope: Scope, order: Sequence[Any]) -> bool:
        """Check the select list and the order against the groups. Returns whether all rows are one
        group."""
        shown, having = [value.node for value in scope.output], node.args.get("having")
        if scope.groups or scope.aggregated:
            message = names.NOT_GROUPED if scope.groups else names.NOT_AGGREGATED
            known = scope.determined()
            scope.check("SELECT list", shown, known, message)
            scope.check("ORDER BY clause", order if scope.groups else (), known, message)
        elif having is not None:
            # Without groups, HAVING is a condition on rows.
            node.where(having.this, copy=False).set("having", None)
        if node.args.get("distinct") and not scope.groups:
            scope.check("ORDER BY clause", order, set(shown), names.NOT_LISTED)
        return scope.aggregated and not scope.groups

    def _set_operation(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        left, right = self.query(node.this, outer, True), self.query(node.expression, outer, True)
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        pairs = list(zip(left.columns, right.columns, strict=True))
        columns = [one._replace(type=common_type((one.type, other.type))) for one, other in pairs]
        first, second = (
            ", ".join(
                f"{sql_of(as_text(value) if to.type == TEXT else value.node)} AS {to.node.name}"
                for value, to in zip(query.columns, columns, strict=True)
            )
            for query in (left, right)
        )
        sql = (
            f'SELECT {first}, "#" FROM ({left.sql}) UNION ALL '
            f'SELECT {second}, "#" + {_SECOND} FROM ({right.sql})'
        )
        both = f'sum("#" >= {_SECOND})'
        having = {
            "except": f" HAVING NOT {both}",
            "intersect": f' HAVING {both} AND min("#") < {_SECOND}',
        }.get(node.key, "")
        every = isinstance(node, exp.Union) and not node.args.get("distinct")
        return self._sorted(Query(sql, columns), node, outer, numbered, None if every else having)

    def _sorted(
        self,
        query: Query,
        node: Any,
        outer: Scope | None,
        numbered: bool,
        having: str | None = None,
    ) -> Query:
        """Apply the ORDER BY and LIMIT of `node` to a query, and `having` as in `_grouped`."""
        source = Source("", "", {column.name.lower(): column for column in query.columns})
        order = self._order(node, Scope(outer, [source], [source], output=query.columns))
        keys = [sql_of(key(value)) + way for value, way in order]
        return self._grouped(query, keys, _limit(node), numbered, having)

    def _grouped(
        self, query: Query, keys: list[str], limit: str, numbered: bool, having: str | None
    ) -> Query:
        """Sort a numbered query by `keys`, then by its row numbers. Unless `having` is None, only
        the first of equal rows is kept, under that condition."""
        group, number = "", '"#"'
        if having is not None:
            columns = ", ".join(sql_of(key(column)) for column in query.columns)
            group, number = f" GROUP BY {columns}{having}", 'min("#")'
        keys = [*keys, number]
        shown = [column.node.name for column in query.columns]
        shown += [_number(keys)] if numbered else []
        sql = f"SELECT {', '.join(shown)} FROM ({query.sql}){group}{_order_by(keys)}{limit}"
        return query._replace(sql=sql)


def _without(node: Any, absent: set[Any]) -> None:
    """Replace the `absent` expressions outside aggregates by NULL, and GROUPING by its value."""
    if isinstance(node, exp.AggFunc):
        return
    for part in list(node.iter_expressions()):
        if isinstance(part, exp.Anonymous) and part.name == "my_grouping":
            part.replace(exp.Literal.number(int(part.expressions[0] in absent)))
        elif part in absent:
            part.replace(exp.Null())
        else:
            _without(part, absent)


def _number(keys: Sequence[str]) -> str:
    return f'row_number() OVER ({_order_by(keys)}) AS "#"'


def _order_by(keys: Sequence[str]) -> str:
    return f" ORDER BY {', '.join(keys)}" if keys else ""


def _limit(node: Any) -> str:
    counts = {
        part: node.args[part].expression
        for part in ("limit", "offset")
        if node.args.get(part) is not None
    }
    return "".join(
        f" {part.upper()} {min(int(count.name), 2**62)}"
        for part, count in counts.items()
        if count.is_int
    )
