"""Translates SELECTs, subqueries and set operations to SQLite's SQL, with the rows in MySQL's
order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ErrorLevel

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.expressions import Expressions, comparable, key
from rro.intercode_sql.embedded.names import Scope, Source, Value
from rro.intercode_sql.embedded.order import reading_order
from rro.intercode_sql.embedded.store import Catalogue, Table, common_type
from rro.intercode_sql.engine import SqlError

# Tables of one statement. One of WITH counts each time it is used.
MAX_SOURCES = 61
# Added to the row numbers of the second query of a set operation.
_SECOND = 1 << 40
_sql = SQLite().generator(unsupported_level=ErrorLevel.IGNORE).generate


class Query(NamedTuple):
    """A translated query. Its columns are named c1, c2 ...; if requested, one more, named #,
    numbers the rows."""

    sql: str
    columns: list[Value]


class Queries(Expressions):
    """Translates one statement: `nodes` are those of its tree, `database` is the one in use. Raises
    SqlError if a table does not exist."""

    def __init__(self, catalogue: Catalogue, database: str, nodes: Sequence[Any]) -> None:
        self.database, self._catalogue, self._opened = database, catalogue, 0
        self._common_tables = {
            node.alias.lower(): node.this for node in nodes if isinstance(node, exp.CTE)
        }
        # MySQL looks up all tables before any other name.
        for node in nodes:
            if isinstance(node, exp.Table) and self._common_table(node) is None:
                self._table(node)

    def query(self, node: Any, outer: Scope | None = None, numbered: bool = False) -> Query:
        """Translate a query in the scope `outer`; `numbered` asks for row numbers. Raises SqlError
        if MySQL rejects it."""
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
        order = order or ([] if numbered else scope.windows)
        keys = [_sql(key(value)) + way for value, way in order if not scope.is_fixed(value.node)]
        keys = [] if single else keys + reading_order(scope)
        for part in ("with_", "distinct", "order", "limit", "offset", "windows"):
            node.set(part, None)
        output = list(enumerate(scope.output, 1))
        columns = [exp.alias_(value.node.copy(), f"c{n}") for n, value in output]
        numbers = [exp.Var(this=_number(keys))] if numbered or distinct else []
        node.set("expressions", columns + numbers)
        result = [value._replace(node=exp.column(f"c{n}")) for n, value in output]
        if distinct:
            return self._grouped(Query(_sql(node), result), [], limit, numbered, "")
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

    # --- FROM

    def _open(self, node: Any, scope: Scope) -> None:
        """Translate the tables and subqueries of FROM, in their places, and add them to the
        scope."""
        clause = node.args.get("from_")
        if clause is not None:
            self._add_source(clause.this, scope)
            for join in node.args.get("joins") or ():
                self._join(join, scope)
        scope.visible = scope.sources

    def _add_source(self, node: Any, scope: Scope) -> Source:
        source = self._source(node, scope)
        if any(source.name.lower() == other.name.lower() for other in scope.sources):
            raise SqlError(f"Not unique table/alias: '{source.name}'")
        scope.sources.append(source)
        return source

    def _join(self, join: Any, scope: Scope) -> None:
        before = list(scope.sources)
        source = self._add_source(join.this, scope)
        if join.side == "LEFT":
            source.after = before
        if join.side == "RIGHT":
            for other in before:
                other.after = [source]
        if join.method:
            raise SqlError(f"This version of MySQL doesn't yet support '{join.method} JOIN'")
        if join.args.get("using"):
            self._merge(join, source, scope)

    def _merge(self, join: Any, source: Source, scope: Scope) -> None:
        """Translate USING to the condition that columns of the same name are equal."""
        conditions = []
        for name in (identifier.name.lower() for identifier in join.args["using"]):
            columns = [other.columns[name] for other in scope.sources if name in other.columns]
            if len(columns) < 2:
                raise SqlError(f"Unknown column '{name}' in 'from clause'")
            one, other = columns[0], columns[-1]
            scope.merged[name] = other if join.side == "RIGHT" else one
            scope.equate(one.node, other.node)
            conditions.append(" = ".join(map(_sql, comparable(one, other))))
        join.set("using", None)
        join.set("on", exp.Var(this=" AND ".join(conditions)))

    def _join_conditions(self, node: Any, scope: Scope) -> None:
        """Translate the conditions of ON, which may only use the sources before them."""
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
        """Translate a table or subquery of FROM, in its place."""
        self._opened += 1
        if self._opened > MAX_SOURCES:
            raise SqlError(f"Too many tables; MySQL can only use {MAX_SOURCES} tables in a join")
        alias, name = f"t{self._opened}", node.alias_or_name
        common = self._common_table(node)
        if isinstance(node, exp.Table) and common is None:
            return self._stored_table(node, alias, name)
        if not name:
            raise SqlError("Every derived table must have its own alias")
        query = self.query(node.this if common is None else common.copy(), scope.outer, True)
        node.replace(exp.Var(this=f"({query.sql}) AS {alias}"))
        columns = {
            value.name.lower(): value._replace(node=exp.column(value.node.name, alias))
            for value in query.columns
        }
        if len(columns) < len(query.columns):
            raise SqlError("Duplicate column name in a derived table")
        return Source(alias, name, columns)

    def _stored_table(self, node: Any, alias: str, name: str) -> Source:
        table = self._table(node)
        node.replace(exp.Var(this=f"{table.stored_as} AS {alias}"))
        columns = {
            lower: Value(_stored(column.name, alias), column.type, column.name)
            for lower, column in table.columns.items()
        }
        return Source(alias, name, columns, table)

    def _common_table(self, node: Any) -> Any:
        """The query of WITH that a table's name refers to, or None."""
        if isinstance(node, exp.Table) and not node.db:
            return self._common_tables.get(node.name.lower())
        return None

    def _table(self, node: Any) -> Table:
        """The stored table of a name. Raises SqlError if there is none."""
        database = node.db.lower() or self.database
        if database not in self._catalogue:
            raise SqlError(f"Unknown database '{database}'" if database else "No database selected")
        table = self._catalogue[database].get(node.name.lower())
        if table is None:
            raise SqlError(f"Table '{database}.{node.name.lower()}' doesn't exist")
        return table

    # --- set operations; sorting and DISTINCT of whole queries

    def _set_operation(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        left, right = self.query(node.this, outer, True), self.query(node.expression, outer, True)
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        pairs = list(zip(left.columns, right.columns, strict=True))
        columns = [one._replace(type=common_type((one.type, other.type))) for one, other in pairs]
        second = ", ".join(column.node.name for column in right.columns)
        sql = (
            f"SELECT * FROM ({left.sql}) UNION ALL "
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
        keys = [_sql(key(value)) + way for value, way in order]
        return self._grouped(query, keys, _limit(node), numbered, having)

    def _grouped(
        self, query: Query, keys: list[str], limit: str, numbered: bool, having: str | None
    ) -> Query:
        """Sort a numbered query by `keys`, then by its row numbers. Unless `having` is None, only
        the first of equal rows is kept, under that condition."""
        group, number = "", '"#"'
        if having is not None:
            columns = ", ".join(_sql(key(column)) for column in query.columns)
            group, number = f" GROUP BY {columns}{having}", 'min("#")'
        keys = [*keys, number]
        shown = [column.node.name for column in query.columns]
        shown += [_number(keys)] if numbered else []
        sql = f"SELECT {', '.join(shown)} FROM ({query.sql}){group}{_order_by(keys)}{limit}"
        return query._replace(sql=sql)


def _stored(name: str, alias: str) -> Any:
    """A column of a stored table, marked as such."""
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
