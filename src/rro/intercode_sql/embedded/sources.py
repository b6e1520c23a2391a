"""Translates FROM: tables, derived and common tables, and their joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.calls import Calls
from rro.intercode_sql.embedded.names import Join, Scope, Source
from rro.intercode_sql.embedded.store import TEXT, Catalogue, Table
from rro.intercode_sql.embedded.syntax import Node, Statement
from rro.intercode_sql.embedded.values import (
    Query,
    Value,
    column,
    comparable,
    unsupported,
)
from rro.intercode_sql.engine import SqlError

# Tables of one statement. One of WITH counts each time it is used.
MAX_SOURCES = 61
_COUNTS = (
    "In definition of view, derived table or common table expression, SELECT list and column names "
    "list have different column counts"
)


class CommonTable(NamedTuple):
    """A query of WITH."""

    query: Node
    columns: Sequence[str]
    """The names of its columns, if they are listed."""
    known: Mapping[str, CommonTable]
    """The common tables that it may use."""


class Sources(Calls):
    """Opens the tables of one statement; `database` is the one in use. Raises SqlError if a table
    does not exist."""

    def __init__(self, catalogue: Catalogue, database: str, statement: Statement) -> None:
        super().__init__(statement, database)
        self._catalogue, self._opened, self._columns = catalogue, 0, 0
        self._commons: Mapping[str, CommonTable] = {}
        commons = {
            statement.name(node.first).lower()
            for node in statement.named
            if node.kind == "common_table"
        }
        # MySQL looks up all tables before any other name.
        for node in statement.named:
            if node.kind == "table" and not (
                len(node.parts) == 1 and statement.name(node.first).lower() in commons
            ):
                self._table(node)

    def add_common_tables(self, node: Node) -> None:
        """Add the queries of WITH to the tables that may be used."""
        names = set[str]()
        for table in node.nodes():
            listed = table.part("columns")
            query = table.parts[-1]
            name = self.statement.name(table.first).lower()
            if name in names:
                raise SqlError(f"Not unique table/alias: '{name}'")
            names.add(name)
            common = CommonTable(query, self._listed(listed), self._commons)
            self._commons = {**self._commons, name: common}

    def _listed(self, columns: Node | None) -> list[str]:
        """The names in a list in brackets."""
        idents = columns.part("idents") if columns else None
        return [self.statement.name(part) for part in idents.parts[::2]] if idents else []

    def open(self, node: Node | None, scope: Scope) -> list[str | Join]:
        """Add the tables and subqueries of FROM to the scope. Returns FROM in pieces, of which the
        joins get their conditions later."""
        pieces = list[str | Join]()
        if node is not None and node.parts[-1].__class__ is Node:
            pieces += [" FROM ", *self._add(node.parts[-1], scope)]
        scope.visible = scope.sources
        return pieces

    def _add(self, node: Node, scope: Scope) -> list[str | Join]:
        """Add a table, a subquery, or joins."""
        if node.kind == "source":
            return [self._add_source(node, scope)]
        if node.kind == "joined_brackets" and len(node.parts) == 3:
            inner = self._add(node.parts[1], scope)
            return inner if node.parts[1].kind != "joined" else ["(", *inner, ")"]
        if node.kind in ("tables", "joined_brackets"):
            pieces = list[str | Join]()
            for part in node.nodes():
                for one in part.nodes() if part.kind == "tables" else [part]:
                    inner = self._add(one, scope)
                    # A RIGHT JOIN must not take the tables before it.
                    closed = one.kind == "joined" and pieces
                    inner = ["(", *inner, ")"] if closed else inner
                    pieces += [", ", *inner] if pieces else inner
            return ["(", *pieces, ")"] if node.kind == "joined_brackets" else pieces
        if node.kind == "joined":
            return self._join(node, scope)
        raise unsupported(self.statement.source(node))

    def _add_source(self, node: Node, scope: Scope) -> str:
        source, sql = self._source(node, scope)
        if any(source.name.lower() == other.name.lower() for other in scope.sources):
            raise SqlError(f"Not unique table/alias: '{source.name}'")
        scope.sources.append(source)
        return sql

    def _join(self, node: Node, scope: Scope) -> list[str | Join]:
        left, right, *_ = (part for part in node.nodes() if part.kind not in ("inner", "outer"))
        first = len(scope.sources)
        pieces = self._add(left, scope)
        place, words = len(scope.sources), self._join_words(node)
        inner = self._add(right, scope)
        before, added = scope.sources[first:place], scope.sources[place:]
        for source in added if "LEFT" in words else ():
            source.after = [*source.after, *before]
        for source in before if "RIGHT" in words else ():
            source.after = [*source.after, *added]
        optional = (
            added[0].alias if "LEFT" in words else before[0].alias if "RIGHT" in words else ""
        )
        on = node.parts[-1] if "ON" in words else None
        join = Join(on, [*before, *added], optional)
        scope.joins.append(join)
        shared = self._listed(node.part("columns"))
        if "NATURAL" in words:
            right_names = {name for source in added for name in source.columns}
            shared = [name for source in before for name in source.columns if name in right_names]
        if shared:
            conditions = self._merged(shared, before, added, "RIGHT" in words, scope)
            join.sql = f" ON {' AND '.join(conditions)}"
        side = "LEFT " if "LEFT" in words else "RIGHT " if "RIGHT" in words else ""
        inner = ["(", *inner, ")"] if right.kind == "joined" else inner
        return [*pieces, f" {side}JOIN ", *inner, join]

    def _join_words(self, node: Node) -> list[str]:
        """The words of a join, without those of its tables and condition."""
        words = self.words(node)
        for part in node.nodes():
            if part.kind in ("inner", "outer"):
                words += self.words(part)
        return words

    def _merged(
        self,
        shared: Sequence[str],
        before: Sequence[Source],
        added: Sequence[Source],
        last: bool,
        scope: Scope,
    ) -> list[str]:
        """USING, as the conditions that columns of the same name are equal. Their common value is
        that of the `last` table or of the first."""
        conditions = []
        for name in dict.fromkeys(name.lower() for name in shared):
            left = [source.columns[name] for source in before if name in source.columns]
            right = [source.columns[name] for source in added if name in source.columns]
            if not left or not right:
                raise SqlError(f"Unknown column '{name}' in 'from clause'")
            one, other = left[0], right[-1]
            scope.merged[name] = other if last else one
            scope.equate(one, other)
            conditions.append(" = ".join(comparable(one, other)))
        return conditions

    def join_conditions(self, scope: Scope) -> None:
        """Translate the conditions of ON, which may only use the sources before them."""
        scope.clause = names.ON
        for join in scope.joins:
            scope.visible, scope.optional = join.visible, join.optional
            if join.condition is not None:
                condition = self.value(join.condition, scope)
                scope.hold(condition)
                join.sql = f" ON {condition.sql}"
        scope.visible, scope.optional = scope.sources, ""

    def _source(self, node: Node, scope: Scope) -> tuple[Source, str]:
        """A table or subquery of FROM, and its text."""
        self._opened += 1
        if self._opened > MAX_SOURCES:
            raise SqlError(f"Too many tables; MySQL can only use {MAX_SOURCES} tables in a join")
        if hidden := node.part("partitions"):
            raise unsupported(self.statement.source(hidden))
        alias, inner = f"t{self._opened}", node.parts[0]
        name = self._alias(node) or self.statement.name(inner.parts[-1])
        common = None
        if inner.kind == "table":
            simple = len(inner.parts) == 1
            common = self._commons.get(self.statement.name(inner.first).lower()) if simple else None
        if inner.kind == "table" and common is None:
            table = self._table(inner)
            self._check_hints(node, table)
            columns = stored_columns(table, alias)
            return Source(alias, name, columns, table), f"{table.stored_as} AS {alias}"
        known, listed = self._commons, self._listed(node.part("columns"))
        if common is not None:
            inner, listed, self._commons = common.query, list(common.columns), common.known
        query = self.query(inner, scope.outer, True)
        self._commons = known
        return self._derived(query, listed, alias, name), f"({query.sql}) AS {alias}"

    def _derived(self, query: Query, listed: Sequence[str], alias: str, name: str) -> Source:
        if listed and len(listed) != len(query.columns):
            raise SqlError(_COUNTS)
        shown = listed or [value.name for value in query.columns]
        columns = {
            one.lower(): column(alias, value.column, value, bool(value.stored_key), one)
            for one, value in zip(shown, query.columns, strict=True)
        }
        if len(columns) < len(query.columns):
            raise SqlError("Duplicate column name in a derived table")
        return Source(alias, name, columns)

    def _alias(self, node: Node) -> str:
        """The name of a source behind it, or ""."""
        last = node.part("table_alias")
        number = last.parts[-1] if last else next(iter(self._bare(node)), None)
        return self.statement.name(number) if number is not None else ""

    def _bare(self, node: Node) -> list[int]:
        return [part for part in node.parts if part.__class__ is int]

    def _check_hints(self, node: Node, table: Table) -> None:
        """Raises SqlError for a hint that names no index of the table."""
        known = {name.lower() for name in table.keys.values()}
        for hint in node.nodes():
            idents = hint.part("idents") if hint.kind == "index_hint" else None
            for number in idents.parts[::2] if idents else ():
                if (name := self.statement.name(number)).lower() not in known:
                    raise SqlError(f"Key '{name}' doesn't exist in table '{table.name}'")

    def _table(self, node: Node) -> Table:
        """The stored table of a name. Raises SqlError if there is none."""
        *database, name = self.statement.path(node)
        owner, name = (database[0] if database else self.database).lower(), name.lower()
        if owner not in self._catalogue:
            raise SqlError(f"Unknown database '{owner}'" if owner else "No database selected")
        table = self._catalogue[owner].get(name)
        if table is None:
            raise SqlError(f"Table '{owner}.{name}' doesn't exist")
        return table


@lru_cache(maxsize=4096)
def stored_columns(table: Table, alias: str) -> Mapping[str, Value]:
    """The columns of a stored table, by name in lower case."""
    return {
        lower: column(alias, one.name, Value("", one.type, name=one.name), one.type == TEXT)
        for lower, one in table.columns.items()
    }
