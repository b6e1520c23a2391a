"""What a name in a statement means: the sources of a SELECT, its scope, and MySQL's errors for what
means nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlglot import exp

from rro.intercode_sql.embedded.store import Table, Type

SELECT_LIST, WHERE, ON = "field list", "where clause", "on clause"
GROUP, HAVING, ORDER = "group statement", "having clause", "order clause"
NOT_GROUPED = (
    "Expression #{} of {} is not in GROUP BY clause and contains nonaggregated column '{}' which is not functionally dependent on "
    "columns in GROUP BY clause; this is incompatible with sql_mode=only_full_group_by"
)
NOT_AGGREGATED = (
    "In aggregated query without GROUP BY, expression #{} of {} contains nonaggregated column '{}'; this is incompatible with "
    "sql_mode=only_full_group_by"
)
NOT_LISTED = (
    "Expression #{} of {} is not in SELECT list, references column '{}' which is not in SELECT list; this is incompatible with "
    "DISTINCT"
)


class SqlError(Exception):
    """A statement that MySQL answers with an error; the text is MySQL's message."""


class Value(NamedTuple):
    """An expression: SQLGlot's node of it in SQLite's SQL, the type that MySQL gives it, and the
    name of a column of it."""

    node: Any
    type: Type
    name: str = ""


@dataclass(eq=False)
class Source:
    """A table or subquery in FROM. `columns` are by name in lower case; `used`: those that the
    statement uses; `after`: the sources that an outer join reads before it."""

    alias: str  # in SQLite
    name: str
    columns: Mapping[str, Value]
    table: Table | None = None
    used: set[str] = field(default_factory=set)
    after: Sequence[Source] = ()


@dataclass(eq=False)
class Scope:
    """One SELECT while it is translated: its sources, those in sight, the clause at hand, the
    select list, and the groups. `merged`: columns that USING made one; `equal`: pairs of what is
    known, None for a constant, and what it determines; `optional`: the inner side of the outer join
    whose ON is at hand; `sorts`: an aggregate of distinct values sorts by groups."""

    outer: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    visible: Sequence[Source] = ()
    clause: str = SELECT_LIST
    output: list[Value] = field(default_factory=list)
    groups: list[Value] = field(default_factory=list)
    merged: dict[str, Value] = field(default_factory=dict)
    equal: list[tuple[Any, Any]] = field(default_factory=list)
    optional: str = ""
    in_aggregate: bool = False
    aggregated: bool = False
    sorts: bool = False

    def find(self, node: Any) -> Value:
        """The expression that a column's name means here, or in a scope around this one. Raises
        SqlError as MySQL would."""
        scope: Scope | None = self
        while scope is not None:
            if found := scope._own(node.name.lower(), node.table.lower(), self.clause):
                return found
            scope = scope.outer
        raise SqlError(
            f"Unknown column '{'.'.join(part.name for part in node.parts)}' in '{self.clause}'"
        )

    def _own(self, name: str, table: str, clause: str) -> Value | None:
        found = [source for source in self.named(table) if name in source.columns]
        if len(found) > 1 and (table or name not in self.merged):
            raise SqlError(f"Column '{name}' in {clause} is ambiguous")
        for source in found:
            source.used.add(name)
        column = self.merged.get(name, found[0].columns[name]) if found else None
        if self.in_aggregate or self.clause in (SELECT_LIST, WHERE, ON):
            return column
        if self.clause == HAVING and not any(
            column and group.node == column.node for group in self.groups
        ):
            column = None  # HAVING knows no other columns
        return (
            (self.selected(name) or column)
            if self.clause == HAVING
            else (column or self.selected(name))
        )

    def named(self, table: str) -> list[Source]:
        """The sources in sight of that name, all for none."""
        return [source for source in self.visible if not table or source.name.lower() == table]

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
        """Whether an expression is a constant, or a column of a scope around this one. SQLite would
        take the one for a position in GROUP BY and ORDER BY, and does not know the other there."""
        outside = isinstance(node, exp.Column) and all(
            source.alias != node.table for source in self.sources
        )
        return isinstance(node, exp.Literal) or outside

    def check(self, clause: str, nodes: Iterable[Any], known: set[Any], message: str) -> None:
        """Raises SqlError for the first expression with a column that `known` ones do not
        determine."""
        for number, node in enumerate(nodes, 1):
            if (loose := self._loose(node, known)) is not None:
                source = next(source for source in self.sources if source.alias == loose.table)
                column = next(
                    value.name for value in source.columns.values() if value.node == loose
                )
                name = (
                    f"{source.table.database + '.' if source.table else ''}{source.name}.{column}"
                )
                raise SqlError(message.format(number, clause, name))

    def determined(self) -> set[Any]:
        """The expressions that the groups determine, by equalities and keys."""
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

    def _loose(self, node: Any, known: set[Any]) -> Any:
        if (
            (isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window))
            or node in known
            or self.is_fixed(node)
        ):
            return None
        if isinstance(node, exp.Column):
            return node
        parts = node.iter_expressions()
        return next(
            (loose for part in parts if (loose := self._loose(part, known)) is not None), None
        )
