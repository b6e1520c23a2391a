"""Name resolution: the sources of a SELECT, its scope, and MySQL's errors for names and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlglot import exp

from rro.intercode_sql.embedded.store import Table, Type
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


class Value(NamedTuple):
    """A translated expression: SQLGlot's node in SQLite's SQL, its type in MySQL, and its name if
    it is a column."""

    node: Any
    type: Type
    name: str = ""


@dataclass(eq=False)
class Source:
    """A table or subquery in FROM."""

    alias: str
    """Its name in SQLite."""
    name: str
    """Its name in the statement."""
    columns: Mapping[str, Value]
    """Its columns, by name in lower case."""
    place: Any = None
    """Its node in the translated tree."""
    table: Table | None = None
    """The stored table, unless it is a subquery."""
    used: set[str] = field(default_factory=set)
    """Names of the columns that the statement uses."""
    after: Sequence[Source] = ()
    """The sources that an outer join reads before it."""


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
    merged: dict[str, Value] = field(default_factory=dict)
    """Columns that USING merges, by name."""
    equal: list[tuple[Any, Any]] = field(default_factory=list)
    """Pairs (expression, column that it determines); the expression of a constant is None."""
    joins: list[tuple[Any, Sequence[Source], str]] = field(default_factory=list)
    """The joins, in the order of their conditions, each with the sources that its condition may
    use, and the alias of its optional one."""
    optional: str = ""
    """Alias of the optional source of an outer join, while its ON is translated."""
    in_aggregate: bool = False
    """Whether the arguments of an aggregate are translated."""
    aggregated: bool = False
    """Whether the query has an aggregate."""
    rollup: bool = False
    """Whether the groups are WITH ROLLUP."""
    windows: list[tuple[Value, str]] = field(default_factory=list)
    """What the last window sorts the rows by, each with its direction."""
    sorts: bool = False
    """Whether an aggregate of distinct values makes MySQL sort by the groups."""

    def find(self, node: Any) -> Value:
        """The expression that a column's name refers to, here or in a scope around this one. Raises
        SqlError if the name is unknown or ambiguous."""
        scope: Scope | None = self
        while scope is not None:
            if column := scope._own(node, self.clause):
                return column
            scope = scope.outer
        raise SqlError(
            f"Unknown column '{'.'.join(part.name for part in node.parts)}' in '{self.clause}'"
        )

    def _own(self, node: Any, clause: str) -> Value | None:
        name, table = node.name.lower(), node.table.lower()
        sources = [source for source in self.named(node) if name in source.columns]
        if len(sources) > 1 and (table or name not in self.merged):
            raise SqlError(f"Column '{name}' in {clause} is ambiguous")
        for source in sources:
            source.used.add(name)
        column = self.merged.get(name, sources[0].columns[name]) if sources else None
        if self.in_aggregate or self.clause in (SELECT_LIST, WHERE, ON):
            return column
        if self.clause != HAVING:
            return column or self.selected(name)
        # Of the columns, HAVING may use only those that are groups.
        grouped = column and any(group.node == column.node for group in self.groups)
        return self.selected(name) or (column if grouped else None)

    def named(self, node: Any) -> list[Source]:
        """The visible sources that a column's qualifiers name; all visible ones if it has none."""
        table, database = node.table.lower(), node.db.lower()
        return [
            source
            for source in self.visible
            if table in ("", source.name.lower())
            and (not database or (source.table is not None and source.table.database == database))
        ]

    def selected(self, name: str) -> Value | None:
        """The first item of the select list with that name."""
        return next((item for item in self.output if item.name.lower() == name), None)

    def equate(self, one: Any, other: Any) -> None:
        """Note that two translated expressions are equal in all rows."""
        for known, to in ((one, other), (other, one)):
            if (
                isinstance(to, exp.Column)
                and isinstance(known, exp.Column | exp.Literal)
                and self.optional in ("", to.table)
            ):
                self.equal.append(
                    (None if isinstance(known, exp.Literal) else known.copy(), to.copy())
                )

    def is_fixed(self, node: Any) -> bool:
        """Whether an expression is a constant, or a column of a scope around this one.

        In GROUP BY and ORDER BY, SQLite would take a constant for a position, and does not know
        columns of outer scopes.
        """
        outside = isinstance(node, exp.Column) and all(
            source.alias != node.table for source in self.sources
        )
        return isinstance(node, exp.Literal) or outside

    def check(self, clause: str, nodes: Iterable[Any], known: set[Any], message: str) -> None:
        """Raises SqlError for the first expression with a column that is not determined by the
        `known` expressions."""
        for number, node in enumerate(nodes, 1):
            if (column := self._undetermined(node, known)) is not None:
                raise SqlError(message.format(number, clause, self._full_name(column)))

    def _full_name(self, column: Any) -> str:
        source = next(source for source in self.sources if source.alias == column.table)
        name = next(value.name for value in source.columns.values() if value.node == column)
        database = f"{source.table.database}." if source.table else ""
        return f"{database}{source.name}.{name}"

    def determined(self) -> set[Any]:
        """The expressions that the groups determine, directly, by equalities or by unique keys."""
        known, before = {group.node for group in self.groups}, -1
        while before < len(known):
            before = len(known)
            known |= {to for one, to in self.equal if one is None or one in known}
            for source in self.sources:
                unique = source.table.unique if source.table else ()
                if any(
                    all(source.columns[name].node in known for name in names) for names in unique
                ):
                    known |= {column.node for column in source.columns.values()}
        return known

    def _undetermined(self, node: Any, known: set[Any]) -> Any:
        """The first column of an expression that `known` does not determine, or None."""
        if (
            (isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window))
            or node in known
            or self.is_fixed(node)
        ):
            return None
        if isinstance(node, exp.Column):
            return node
        parts = node.iter_expressions()
        columns = (self._undetermined(part, known) for part in parts)
        return next((column for column in columns if column is not None), None)
