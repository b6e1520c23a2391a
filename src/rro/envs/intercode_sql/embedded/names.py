"""What a name in a statement means: the sources of a SELECT, its scope, and MySQL's errors for what means nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlglot import exp

from rro.envs.intercode_sql.embedded.catalogue import Table, Type

SELECT_LIST, WHERE, ON = "field list", "where clause", "on clause"
IN_SUBQUERY, GROUP, HAVING, ORDER = "IN/ALL/ANY subquery", "group statement", "having clause", "order clause"


class SqlError(Exception):
    """A statement that MySQL answers with an error; the text is MySQL's message."""


class Value(NamedTuple):
    """An expression: SQLGlot's node of it in SQLite's SQL, the type that MySQL gives it, and the name of a column of it."""

    node: Any
    type: Type
    name: str = ""


@dataclass(eq=False)
class Source:
    """A table or subquery in FROM. `columns` are by name in lower case; `unique`: sets of columns that identify a row;
    `used`: columns that the statement uses; `after`: the sources that an outer join reads before it."""

    alias: str  # in SQLite
    name: str
    columns: Mapping[str, Value]
    unique: Sequence[Sequence[str]] = ()
    rows: int = 100
    table: Table | None = None
    used: set[str] = field(default_factory=set)
    after: Sequence[Source] = ()

    def full_name(self, column: str) -> str:
        """How MySQL's messages name a column of it."""
        return f"{self.table.database + '.' if self.table else ''}{self.name}.{self.columns[column].name}"


@dataclass(eq=False)
class Scope:
    """One SELECT while it is translated: its sources, those in sight, the clause at hand, its select list, and its groups.
    `merged`: columns that USING made one; `equal`: pairs of what is known, None for a constant, and what it determines."""

    outer: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    visible: Sequence[Source] = ()
    clause: str = SELECT_LIST
    output: list[Value] = field(default_factory=list)
    groups: list[Value] = field(default_factory=list)
    merged: dict[str, Value] = field(default_factory=dict)
    equal: list[tuple[Any, Any]] = field(default_factory=list)
    in_aggregate: bool = False
    optional: str = ""  # the inner side of the outer join whose ON is at hand
    sorts_groups: bool = False  # for an aggregate of distinct values, MySQL sorts by the groups

    def find(self, name: str, table: str = "", database: str = "") -> Value:
        """The expression that a name means here, or in a scope around this one. Raises SqlError as MySQL would."""
        scope: Scope | None = self
        while scope is not None:
            if found := scope._own(name.lower(), table.lower(), database.lower(), self.clause):
                return found
            scope = scope.outer
        written = ".".join(part for part in (database, table, name) if part)
        raise SqlError(f"Unknown column '{written}' in '{self.clause}'")

    def _own(self, name: str, table: str, database: str, clause: str) -> Value | None:
        column = self._column(name, table, database, clause)
        if self.in_aggregate or self.clause in (SELECT_LIST, WHERE, ON, IN_SUBQUERY):
            return column
        if self.clause == HAVING:  # knows what is selected or grouped by, but no other columns
            grouped = [group for group in self.groups if column and group.node == column.node]
            return self.selected(name) or (grouped[0] if grouped else None)
        return column or self.selected(name)

    def _column(self, name: str, table: str, database: str, clause: str) -> Value | None:
        if not table and name in self.merged:
            return self.merged[name]
        found = [source for source in self.named(table, database) if name in source.columns]
        if len(found) > 1:
            raise SqlError(f"Column '{name}' in {clause} is ambiguous")
        for source in found:
            source.used.add(name)
        return found[0].columns[name] if found else None

    def named(self, table: str, database: str = "") -> list[Source]:
        """The sources in sight of that name, all for none."""
        named = [source for source in self.visible if not table or source.name.lower() == table]
        return [source for source in named if not database or (source.table and source.table.database == database)]

    def equate(self, one: Any, other: Any) -> None:
        """Note that two translated expressions are equal in all rows; those of an outer join's inner side, where there is one."""
        for known, determined in ((one, other), (other, one)):
            if isinstance(determined, exp.Column) and self.optional in ("", determined.table):
                constant = isinstance(known, exp.Literal)
                if constant or isinstance(known, exp.Column):
                    self.equal.append((None if constant else known.copy(), determined.copy()))

    def selected(self, name: str) -> Value | None:
        """The first item of the select list with that name."""
        return next((item for item in self.output if item.name.lower() == name), None)

    # --- only_full_group_by

    def check_groups(self, clause: str, nodes: Sequence[Any]) -> None:
        """Raises SqlError for the first expression that may differ within a group."""
        known = self._determined()
        for number, node in enumerate(nodes, 1):
            if (loose := self._loose(node, known)) is not None:
                name = self._name(loose)
                raise SqlError(
                    f"Expression #{number} of {clause} is not in GROUP BY clause and contains nonaggregated column '{name}' "
                    "which is not functionally dependent on columns in GROUP BY clause; this is incompatible with "
                    "sql_mode=only_full_group_by"
                    if self.groups
                    else f"In aggregated query without GROUP BY, expression #{number} of {clause} contains nonaggregated "
                    f"column '{name}'; this is incompatible with sql_mode=only_full_group_by"
                )

    def is_fixed(self, node: Any) -> bool:
        """Whether an expression is a constant, or a column of a scope around this one. SQLite would take the one for a position
        in GROUP BY and ORDER BY, and does not know the other there."""
        inside = any(source.alias == node.table for source in self.sources) if isinstance(node, exp.Column) else True
        return isinstance(node, exp.Literal) or not inside

    def check_distinct(self, order: Sequence[Any]) -> None:
        """Raises SqlError for the first expression of ORDER BY with a column that SELECT DISTINCT does not list."""
        for number, node in enumerate(order, 1):
            if (column := self._loose(node, {value.node for value in self.output})) is not None:
                raise SqlError(
                    f"Expression #{number} of ORDER BY clause is not in SELECT list, references column '{self._name(column)}' "
                    "which is not in SELECT list; this is incompatible with DISTINCT"
                )

    def _name(self, column: Any) -> str:
        """How MySQL's messages name a column of this scope."""
        return next(s.full_name(name) for s in self.sources for name, value in s.columns.items() if value.node == column)

    def _determined(self) -> set[Any]:
        """The expressions that the groups determine, by equalities and keys."""
        known, before = {group.node for group in self.groups}, -1
        while before < len(known):
            before = len(known)
            known |= {determined for one, determined in self.equal if one is None or one in known}
            for source in self.sources:
                if any(all(source.columns[name].node in known for name in key) for key in source.unique):
                    known |= {column.node for column in source.columns.values()}
        return known

    def _loose(self, node: Any, known: set[Any]) -> Any:
        if is_aggregate(node) or node in known:
            return None
        if isinstance(node, exp.Column):
            return node if any(source.alias == node.table for source in self.sources) else None
        parts = node.iter_expressions()
        return next((loose for part in parts if (loose := self._loose(part, known)) is not None), None)


def is_aggregate(node: Any) -> bool:
    """Whether a node is a call of an aggregate function over a group."""
    return isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window)
