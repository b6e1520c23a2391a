"""Translates FROM: tables, derived and common tables, and their joins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlglot import exp

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.calls import Calls
from rro.intercode_sql.embedded.names import Scope, Source, Value
from rro.intercode_sql.embedded.store import Catalogue, Table
from rro.intercode_sql.embedded.values import Query, column_of, comparable, sql_of
from rro.intercode_sql.engine import SqlError

# Tables of one statement. One of WITH counts each time it is used.
MAX_SOURCES = 61
# The parts of SQLGlot's nodes that are translated here. Any other would be lost.
QUERY_PARTS = {"with_", "order", "limit", "offset"}
_PARTS: dict[type[Any], set[str]] = {
    exp.Select: QUERY_PARTS
    | {"expressions", "from_", "joins", "where", "group", "having", "distinct"}
    | {"operation_modifiers", "windows"},
    **dict.fromkeys(
        (exp.Union, exp.Except, exp.Intersect), QUERY_PARTS | {"this", "expression", "distinct"}
    ),
    exp.Subquery: QUERY_PARTS | {"this", "alias", "joins"},
    exp.With: {"expressions", "recursive"},
    exp.CTE: {"this", "alias"},
    exp.Table: {"this", "db", "alias", "joins", "hints"},
    exp.Join: {"this", "on", "using", "side", "kind", "method"},
    exp.Group: {"expressions", "rollup"},
    exp.Ordered: {"this", "desc", "nulls_first"},
    exp.Distinct: {"expressions"},
    exp.Limit: {"expression"},
    exp.Offset: {"expression"},
}


class Sources(Calls):
    """Opens the tables of one statement: `nodes` are those of its tree, `database` is the one in
    use. Raises SqlError if a table does not exist."""

    def __init__(self, catalogue: Catalogue, database: str, nodes: Sequence[Any]) -> None:
        self.database, self._catalogue, self._opened, self._columns = database, catalogue, 0, 0
        nodes = [node for node in nodes if type(node) in _PARTS]
        commons = [node for node in nodes if isinstance(node, exp.CTE)]
        self._common_tables = {node.alias.lower(): node.this for node in commons}
        self._common_names = {
            node.alias.lower(): [column.name for column in node.args["alias"].columns]
            for node in commons
        }
        # MySQL looks up all tables before any other name.
        for node in nodes:
            _check_parts(node)
            known = _is_dual(node) or self._common_table(node) is not None
            if isinstance(node, exp.Table) and not known:
                self._table(node)

    def _open(self, node: Any, scope: Scope) -> None:
        """Translate the tables and subqueries of FROM, in their places, and add them to the
        scope."""
        clause = node.args.get("from_")
        if clause is not None and _is_dual(clause.this):
            node.set("from_", None)
        elif clause is not None:
            self._add_sources(clause.this, scope)
            for join in node.args.get("joins") or ():
                self._join(join, scope, 0)
        scope.visible = scope.sources

    def _add_sources(self, node: Any, scope: Scope) -> None:
        """Add a table, a subquery, or joins, which may be in brackets."""
        first, joins = len(scope.sources), node.args.get("joins") or []
        if _is_bracket(node):
            self._add_sources(node.this, scope)
        else:
            node.set("joins", None)
            source = self._source(node, scope)
            if any(source.name.lower() == other.name.lower() for other in scope.sources):
                raise SqlError(f"Not unique table/alias: '{source.name}'")
            scope.sources.append(source)
            if joins:
                source.place.replace(
                    exp.Subquery(this=exp.Table(this=source.place.copy(), joins=joins))
                )
        for join in joins:
            self._join(join, scope, first)

    def _join(self, join: Any, scope: Scope, first: int) -> None:
        """Add the right side of a join, the left side of which begins at the source `first`."""
        before, place = scope.sources[first:], len(scope.sources)
        self._add_sources(join.this, scope)
        added = scope.sources[place:]
        for source in added if join.side == "LEFT" else ():
            source.after = [*source.after, *before]
        for source in before if join.side == "RIGHT" else ():
            source.after = [*source.after, *added]
        optional = added[0] if join.side == "LEFT" else before[0]
        scope.joins.append((join, scope.sources[first:], optional.alias if join.side else ""))
        names = [identifier.name.lower() for identifier in join.args.get("using") or ()]
        if join.method == "NATURAL":
            right = {name for source in added for name in source.columns}
            names = [name for source in before for name in source.columns if name in right]
            join.set("method", None)
        if join.kind == "STRAIGHT_JOIN":
            join.set("kind", None)
        if names:
            self._merge(join, list(dict.fromkeys(names)), before, added, scope)

    def _merge(
        self,
        join: Any,
        names: Sequence[str],
        before: Sequence[Source],
        added: Sequence[Source],
        scope: Scope,
    ) -> None:
        """Translate USING to the condition that columns of the same name are equal."""
        conditions = []
        for name in names:
            left = [source.columns[name] for source in before if name in source.columns]
            right = [source.columns[name] for source in added if name in source.columns]
            if not left or not right:
                raise SqlError(f"Unknown column '{name}' in 'from clause'")
            one, other = left[0], right[-1]
            scope.merged[name] = other if join.side == "RIGHT" else one
            scope.equate(one.node, other.node)
            conditions.append(" = ".join(map(sql_of, comparable(one, other))))
        join.set("using", None)
        join.set("on", exp.Var(this=" AND ".join(conditions)))

    def _join_conditions(self, scope: Scope) -> None:
        """Translate the conditions of ON, which may only use the sources before them."""
        scope.clause = names.ON
        for join, visible, optional in scope.joins:
            scope.visible, scope.optional = visible, optional
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
        query = self.query(node.this if common is None else common.copy(), scope.outer, True)
        place = node.replace(exp.Var(this=f"({query.sql}) AS {alias}"))
        columns = {
            name.lower(): value._replace(node=column_of(value.node.name, alias), name=name)
            for name, value in zip(self._column_names(node, query), query.columns, strict=True)
        }
        if len(columns) < len(query.columns):
            raise SqlError("Duplicate column name in a derived table")
        return Source(alias, name, columns, place)

    def _column_names(self, node: Any, query: Query) -> list[str]:
        """The names of a derived or common table's columns: those listed behind its name, or those
        of its query."""
        common = (
            self._common_names.get(node.name.lower(), []) if isinstance(node, exp.Table) else ()
        )
        listed = (
            common or [column.name for column in node.args["alias"].columns]
            if (common or node.args.get("alias"))
            else []
        )
        if listed and len(listed) != len(query.columns):
            raise SqlError(
                "In definition of view, derived table or common table expression, SELECT list and "
                "column names list have different column counts"
            )
        return listed or [column.name for column in query.columns]

    def _stored_table(self, node: Any, alias: str, name: str) -> Source:
        table = self._table(node)
        place = node.replace(exp.Var(this=f"{table.stored_as} AS {alias}"))
        columns = {
            lower: Value(_stored(column.name, alias), column.type, column.name)
            for lower, column in table.columns.items()
        }
        return Source(alias, name, columns, place, table)

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


def _check_parts(node: Any) -> None:
    """Raises SqlError for a node with a part that would be lost."""
    parts = _PARTS[type(node)]
    if lost := [part for part, value in node.args.items() if value and part not in parts]:
        raise SqlError(f"This version of MySQL doesn't yet support '{node.key} with {lost[0]}'")


def _is_dual(node: Any) -> bool:
    """Whether it is DUAL, which is no table. It is a reserved word."""
    return isinstance(node, exp.Table) and node.name.upper() == "DUAL" and not node.this.quoted


def _is_bracket(node: Any) -> bool:
    """Whether a part of FROM is a table or join in brackets."""
    return (
        isinstance(node, exp.Subquery)
        and not node.alias
        and isinstance(node.this, exp.Table | exp.Subquery)
    )


@lru_cache(maxsize=4096)
def _stored(name: str, alias: str) -> Any:
    """A column of a stored table, marked as such. It is shared: copy it into a tree."""
    column = column_of(name, alias)
    column.this.set("quoted", True)
    column.set("stored", True)
    return column
