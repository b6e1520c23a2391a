"""Name resolution: the sources of a SELECT, its scope, and MySQL's errors for names and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rro.intercode_sql.embedded.store import Table
from rro.intercode_sql.embedded.syntax import Node
from rro.intercode_sql.embedded.values import Value
from rro.intercode_sql.engine import SqlError

SELECT_LIST, WHERE, ON = "field list", "where clause", "on clause"
GROUP, HAVING, ORDER = "group statement", "having clause", "order clause"
NOT_GROUPED = (
    "Expression #{} of {} is not in GROUP BY clause and contains nonaggregated column '{}' which "
    "is not functionally dependent on columns in GROUP BY clause; this is incompatible with "
    "sql_mode=only_full_group_by"
)
NOT_AGGREGATED = (
    "In aggregated query without GROUP BY, expression #{} of {} contains nonaggregated column "
    "'{}'; this is incompatible with sql_mode=only_full_group_by"
)
NOT_LISTED = (
    "Expression #{} of {} is not in SELECT list, references column '{}' which is not in SELECT "
    "list; this is incompatible with DISTINCT"
)


@dataclass(eq=False)
class Source:
    """A table or subquery in FROM."""

    alias: str
    """Its name in SQLite."""
    name: str
    """Its name in the statement."""
    columns: Mapping[str, Value]
    """Its columns, by name in lower case."""
    table: Table | None = None
    """The stored table, unless it is a subquery."""
    used: set[str] = field(default_factory=set)
    """Names of the columns that the statement uses."""
    after: Sequence[Source] = ()
    """The sources that an outer join reads before it."""


@dataclass(eq=False)
class Join:
    """A join, whose condition is translated after the select list."""

    condition: Node | None
    """The condition of ON."""
    visible: Sequence[Source]
    """The sources that the condition may use."""
    optional: str
    """The alias of its optional source."""
    sql: str = ""
    """ON with the translated condition."""


@dataclass(eq=False)
class Scope:
    """The state of one SELECT while it is translated."""

    outer: Scope | None = None
    """The scope of the query around this one."""
    sources: list[Source] = field(default_factory=list)
    """The tables and subqueries of FROM."""
    visible: Sequence[Source] = ()
    """Those that names in the current clause may refer to."""
    clause: str = SELECT_LIST
    """The clause that is translated, as in MySQL's messages."""
    output: list[Value] = field(default_factory=list)
    """The select list."""
    groups: list[Value] = field(default_factory=list)
    """The expressions of GROUP BY."""
    absent: set[str] = field(default_factory=set)
    """Those that are NULL in totals of WITH ROLLUP."""
    merged: dict[str, Value] = field(default_factory=dict)
    """Columns that USING merges, by name."""
    equal: list[tuple[Value | None, Value]] = field(default_factory=list)
    """Pairs (expression, column that it determines); the expression of a constant is None."""
    joins: list[Join] = field(default_factory=list)
    """The joins, in the order of their conditions."""
    optional: str = ""
    """Alias of the optional source of an outer join, while its ON is translated."""
    in_aggregate: bool = False
    """Whether the arguments of an aggregate are translated."""
    aggregated: bool = False
    """Whether the query has an aggregate."""
    named_windows: dict[str, Node] = field(default_factory=dict)
    """The windows of WINDOW, by name in lower case."""
    windows: list[tuple[Value, str]] = field(default_factory=list)
    """What the last window sorts the rows by, each with its direction."""
    sorts: bool = False
    """Whether an aggregate of distinct values makes MySQL sort by the groups."""

    def find(self, path: Sequence[str]) -> Value:
        """The expression that a column's name refers to, here or in a scope around this one; its
        qualifiers are before it in `path`. Raises SqlError if the name is unknown or ambiguous."""
        scope: Scope | None = self
        while scope is not None:
            if column := scope._own(path, self.clause):
                return column
            scope = scope.outer
        raise SqlError(f"Unknown column '{'.'.join(path)}' in '{self.clause}'")

    def _own(self, path: Sequence[str], clause: str) -> Value | None:
        name = path[-1].lower()
        sources = [source for source in self.named(path[:-1]) if name in source.columns]
        if len(sources) > 1 and (len(path) > 1 or name not in self.merged):
            raise SqlError(f"Column '{name}' in {clause} is ambiguous")
        for source in sources:
            source.used.add(name)
        column = self.merged.get(name, sources[0].columns[name]) if sources else None
        if self.in_aggregate or self.clause in (SELECT_LIST, WHERE, ON):
            return column
        if self.clause != HAVING:
            return column or self.selected(name)
        # Of the columns, HAVING may use only those that are groups.
        grouped = column and any(group.sql == column.sql for group in self.groups)
        return self.selected(name) or (column if grouped else None)

    def named(self, path: Sequence[str]) -> Sequence[Source]:
        """The visible sources that a column's qualifiers name; all visible ones if it has none."""
        if not path:
            return self.visible
        table, database = path[-1].lower(), path[0].lower() if len(path) > 1 else ""
        return [
            source
            for source in self.visible
            if source.name.lower() == table
            and (not database or (source.table is not None and source.table.database == database))
        ]

    def selected(self, name: str) -> Value | None:
        """The first item of the select list with that name."""
        return next((item for item in self.output if item.name.lower() == name), None)

    def hold(self, condition: Value) -> None:
        """Note what a condition says of all rows: which of its values are equal."""
        if condition.kind == "AND":
            for part in condition.parts:
                self.hold(part)
        elif condition.kind == "=":
            self.equate(*condition.parts)

    def equate(self, one: Value, other: Value) -> None:
        """Note that two values are equal in all rows."""
        for known, to in ((one, other), (other, one)):
            constant = known.text is not None
            if to.column and (constant or known.column) and self.optional in ("", to.table):
                self.equal.append((None if constant else known, to))

    def is_fixed(self, value: Value) -> bool:
        """Whether an expression is a constant, or a column of a scope around this one.

        In GROUP BY and ORDER BY, SQLite would take a constant for a position, and does not know
        columns of outer scopes.
        """
        return value.text is not None or (
            bool(value.column) and all(source.alias != value.table for source in self.sources)
        )

    def check(self, clause: str, values: Iterable[Value], known: set[str], message: str) -> None:
        """Raises SqlError for the first expression with a column that is not determined by the
        `known` expressions."""
        for number, value in enumerate(values, 1):
            if (column := self._undetermined(value, known)) is not None:
                raise SqlError(message.format(number, clause, self._full_name(column)))

    def _full_name(self, column: Value) -> str:
        source = next(source for source in self.sources if source.alias == column.table)
        name = next(value.name for value in source.columns.values() if value.sql == column.sql)
        database = f"{source.table.database}." if source.table else ""
        return f"{database}{source.name}.{name}"

    def determined(self) -> set[str]:
        """The expressions that the groups determine, directly, by equalities or by unique keys."""
        known, before = {group.sql for group in self.groups}, -1
        while before < len(known):
            before = len(known)
            known |= {to.sql for one, to in self.equal if one is None or one.sql in known}
            for source in self.sources:
                unique = source.table.unique if source.table else ()
                if any(
                    all(source.columns[name].sql in known for name in names) for names in unique
                ):
                    known |= {column.sql for column in source.columns.values()}
        return known

    def _undetermined(self, value: Value, known: set[str]) -> Value | None:
        """The first column of an expression that `known` does not determine, or None."""
        if value.kind in ("SUM", "aggregate") or value.sql in known or self.is_fixed(value):
            return None
        if value.column:
            return value
        columns = (self._undetermined(part, known) for part in value.parts)
        return next((column for column in columns if column is not None), None)
