"""SELECTs, subqueries and set operations in SQLite's SQL, with their rows in the order in which
MySQL gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ErrorLevel

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.expressions import Expressions, comparable, key
from rro.intercode_sql.embedded.names import Scope, Source, SqlError, Value
from rro.intercode_sql.embedded.order import reading_order
from rro.intercode_sql.embedded.store import Catalogue, Table, common_type

MAX_SOURCES = 61  # tables of one statement; one of WITH counts wherever it is used
_SECOND = 1 << 40  # added to the row numbers of a set operation's second query
_sql = SQLite().generator(unsupported_level=ErrorLevel.IGNORE).generate


class Query(NamedTuple):
    """A translated query. Its columns are called c1, c2 ...; one more, #, numbers the rows where
    that was asked for."""

    sql: str
    columns: list[Value]


class Queries(Expressions):
    """Translates a statement of these nodes, which runs with `database` in use."""

    def __init__(self, catalogue: Catalogue, database: str, nodes: Sequence[Any]) -> None:
        self.database, self._catalogue, self._opened = database, catalogue, 0
        self._common_tables = {
            node.alias.lower(): node.this for node in nodes if isinstance(node, exp.CTE)
        }
        for node in nodes:  # MySQL looks at all tables before it looks at names
            if isinstance(node, exp.Table) and (
                node.db or node.name.lower() not in self._common_tables
            ):
                self._table(node)

    def query(self, node: Any, outer: Scope | None = None, numbered: bool = False) -> Query:
        """Translate a query. Raises SqlError."""
        if isinstance(node, exp.Subquery):
            return self._sorted(self.query(node.this, outer, True), node, outer, numbered)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer, numbered)
        return self._select(node, outer, numbered)

    # --- SELECT, clause by clause in MySQL's order

    def _select(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        scope, distinct, limit = Scope(outer), node.args.get("distinct"), _limit(node)
        self._open(node, scope)
        self._select_list(node, scope)
        self._condition(node.args.get("where"), names.WHERE, scope)
        self._join_conditions(node, scope)
        self._group(node, scope)
        self._condition(node.args.get("having"), names.HAVING, scope)
        order = self._order(node, scope)
        single = self._check(node, scope, [value.node for value, _ in order])
        order += [(group, "") for group in scope.groups if scope.sorts]
        keys = [_sql(key(value)) + way for value, way in order if not scope.is_fixed(value.node)]
        keys = [] if single else keys + reading_order(scope)
        columns = [
            exp.alias_(value.node.copy(), f"c{n}") for n, value in enumerate(scope.output, 1)
        ]
        for part in ("with_", "distinct", "order", "limit", "offset"):
            node.set(part, None)
        node.set(
            "expressions", columns + ([exp.Var(this=_number(keys))] if numbered or distinct else [])
        )
        result = [
            Value(exp.column(f"c{n}"), value.type, value.name)
            for n, value in enumerate(scope.output, 1)
        ]
        if distinct:
            return self._once(Query(_sql(node), result), [], limit, numbered, "")
        return Query(f"{_sql(node)}{_order_by(keys)}{limit}", result)

    def _select_list(self, node: Any, scope: Scope) -> None:
        for item in list(node.expressions):
            if item.is_star:
                scope.output += self._star(
                    item.table.lower() if isinstance(item, exp.Column) else "", scope
                )
            else:
                value = self.value(item.this if isinstance(item, exp.Alias) else item, scope)
                scope.output.append(value._replace(name=item.alias_or_name or item.sql("mysql")))

    def _star(self, table: str, scope: Scope) -> Iterator[Value]:
        merged = {} if table else scope.merged
        yield from merged.values()
        for source in scope.named(table):
            source.used.update(source.columns)
            yield from (column for name, column in source.columns.items() if name not in merged)
        if not scope.named(table):
            raise SqlError(f"Unknown table '{table}'" if table else "No tables used")

    def _condition(self, clause: Any, name: str, scope: Scope) -> None:
        scope.clause = name
        if clause is not None:
            self.value(clause.this, scope)

    def _group(self, node: Any, scope: Scope) -> None:
        group, scope.clause = node.args.get("group"), names.GROUP
        if group is not None:
            scope.groups = [self._listed(item, scope) for item in group.expressions]
            keys = [key(value).copy() for value in scope.groups if not scope.is_fixed(value.node)]
            node.set("group", exp.Group(expressions=keys or [exp.Null()]))

    def _order(self, node: Any, scope: Scope) -> list[tuple[Value, str]]:
        order, scope.clause = node.args.get("order"), names.ORDER
        items = order.expressions if order is not None else ()
        return [
            (self._listed(item.this, scope), " DESC" if item.args.get("desc") else "")
            for item in items
        ]

    def _listed(self, node: Any, scope: Scope) -> Value:
        """An item of GROUP BY or ORDER BY: a number counts the select list, and in the latter a
        name is first one of it."""
        if node.is_int and 1 <= int(node.name) <= len(scope.output):
            return scope.output[int(node.name) - 1]
        if node.is_int:
            raise SqlError(f"Unknown column '{node.name}' in '{scope.clause}'")
        bare = scope.clause == names.ORDER and isinstance(node, exp.Column) and not node.table
        return (scope.selected(node.name.lower()) if bare else None) or self.value(node, scope)

    def _check(self, node: Any, scope: Scope, order: Sequence[Any]) -> bool:
        """Check the groups. Whether all rows are one group."""
        shown, having = [value.node for value in scope.output], node.args.get("having")
        if scope.groups or scope.aggregated:
            message, known = (
                names.NOT_GROUPED if scope.groups else names.NOT_AGGREGATED,
                scope.determined(),
            )
            scope.check("SELECT list", shown, known, message)
            scope.check("ORDER BY clause", order if scope.groups else (), known, message)
        elif having is not None:  # then it is one more condition on rows
            node.where(having.this, copy=False).set("having", None)
        if node.args.get("distinct") and not scope.groups:
            scope.check("ORDER BY clause", order, set(shown), names.NOT_LISTED)
        return scope.aggregated and not scope.groups

    # --- FROM

    def _open(self, node: Any, scope: Scope) -> None:
        """Open the tables and subqueries of a SELECT, each with its name in SQLite in its place."""
        clause, joins = node.args.get("from_"), node.args.get("joins") or []
        for place, joined in enumerate([clause, *joins] if clause is not None else []):
            source = self._source(joined.this, scope)
            if any(source.name.lower() == other.name.lower() for other in scope.sources):
                raise SqlError(f"Not unique table/alias: '{source.name}'")
            scope.sources.append(source)
            source.after = scope.sources[:place] if place and joined.side == "LEFT" else ()
            for other in scope.sources[:place] if place and joined.side == "RIGHT" else ():
                other.after = [source]
            if place and joined.method:
                raise SqlError(f"This version of MySQL doesn't yet support '{joined.method} JOIN'")
            if place and joined.args.get("using"):
                self._merge(joined, source, scope)
        scope.visible = scope.sources

    def _merge(self, join: Any, source: Source, scope: Scope) -> None:
        """USING: conditions that columns of the same name are equal."""
        conditions = []
        for name in (identifier.name.lower() for identifier in join.args["using"]):
            found = [other.columns[name] for other in scope.sources if name in other.columns]
            if len(found) < 2:
                raise SqlError(f"Unknown column '{name}' in 'from clause'")
            one, other = found[0], found[-1]
            scope.merged[name] = other if join.side == "RIGHT" else one
            scope.equate(one.node, other.node)
            conditions.append(" = ".join(map(_sql, comparable(one, other))))
        join.set("using", None)
        join.set("on", exp.Var(this=" AND ".join(conditions)))

    def _join_conditions(self, node: Any, scope: Scope) -> None:
        """ON sees what stands before it."""
        scope.clause = names.ON
        for place, join in enumerate(node.args.get("joins") or (), 1):
            scope.visible = scope.sources[: place + 1]
            scope.optional = (
                scope.sources[place if join.side == "LEFT" else 0].alias if join.side else ""
            )
            if (condition := join.args.get("on")) is not None and not isinstance(
                condition, exp.Var
            ):
                self.value(condition, scope)
        scope.visible, scope.optional = scope.sources, ""

    def _source(self, node: Any, scope: Scope) -> Source:
        self._opened += 1
        if self._opened > MAX_SOURCES:
            raise SqlError(f"Too many tables; MySQL can only use {MAX_SOURCES} tables in a join")
        alias, name = f"t{self._opened}", node.alias_or_name
        common = (
            self._common_tables.get(node.name.lower())
            if isinstance(node, exp.Table) and not node.db
            else None
        )
        if isinstance(node, exp.Table) and common is None:
            table = self._table(node)
            node.replace(exp.Var(this=f"{table.stored_as} AS {alias}"))
            columns = {
                n: Value(_stored(column.name, alias), column.type, column.name)
                for n, column in table.columns.items()
            }
            return Source(alias, name, columns, table)
        if not name:
            raise SqlError("Every derived table must have its own alias")
        query = self.query(node.this if common is None else common.copy(), scope.outer, True)
        node.replace(exp.Var(this=f"({query.sql}) AS {alias}"))
        values = [
            value._replace(node=exp.column(value.node.name, alias)) for value in query.columns
        ]
        columns = {value.name.lower(): value for value in values}
        if len(columns) < len(values):
            raise SqlError("Duplicate column name in a derived table")
        return Source(alias, name, columns)

    def _table(self, node: Any) -> Table:
        database = node.db.lower() or self.database
        if database not in self._catalogue:
            raise SqlError(f"Unknown database '{database}'" if database else "No database selected")
        table = self._catalogue[database].get(node.name.lower())
        if table is None:
            raise SqlError(f"Table '{database}.{node.name.lower()}' doesn't exist")
        return table

    # --- set operations, and what is sorted or made distinct afterwards

    def _set_operation(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        left, right = self.query(node.this, outer, True), self.query(node.expression, outer, True)
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        pairs = list(zip(left.columns, right.columns, strict=True))
        columns = [one._replace(type=common_type((one.type, other.type))) for one, other in pairs]
        second = ", ".join(column.node.name for column in right.columns)
        sql = f'SELECT * FROM ({left.sql}) UNION ALL SELECT {second}, "#" + {_SECOND} FROM ({right.sql})'
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
        """A query with the ORDER BY and LIMIT of `node`, and as in `_once`."""
        source = Source("", "", {column.name.lower(): column for column in query.columns})
        order = self._order(node, Scope(outer, [source], [source], output=query.columns))
        return self._once(
            query, [_sql(key(value)) + way for value, way in order], _limit(node), numbered, having
        )

    def _once(
        self, query: Query, keys: list[str], limit: str, numbered: bool, having: str | None
    ) -> Query:
        """A query's rows by `keys` and their numbers: all of them, or with `having` the first of
        those that are the same."""
        group = (
            ""
            if having is None
            else f" GROUP BY {', '.join(_sql(key(column)) for column in query.columns)}{having}"
        )
        keys = [*keys, '"#"' if having is None else 'min("#")']
        shown = ", ".join(
            [
                *(column.node.name for column in query.columns),
                *([_number(keys)] if numbered else []),
            ]
        )
        return query._replace(
            sql=f"SELECT {shown} FROM ({query.sql}){group}{_order_by(keys)}{limit}"
        )


def _stored(name: str, alias: str) -> Any:
    return exp.Column(
        this=exp.to_identifier(name, quoted=True), table=exp.to_identifier(alias), stored=True
    )


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
