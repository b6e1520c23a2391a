"""MySQL's only_full_group_by: whatever is shown of a group must be the same in all its rows, by what is known of keys and
equalities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rro.envs.intercode_sql.embedded.names import Block, Expr, Source
from rro.envs.intercode_sql.embedded.syntax import SqlError

Column = tuple[Source, str]
Equality = tuple[Expr, Expr, Source | None]  # the third: the optional side that an outer join's ON determines


class Dependence:
    """Which columns a block's groups determine."""

    def __init__(self, block: Block, equalities: Sequence[Equality]) -> None:
        self._block = block
        self._keys = {group.sql for group in block.groups}
        self._known: set[Column] = {group.column for group in block.groups if group.column}
        while self._grow(equalities):
            pass

    def _grow(self, equalities: Sequence[Equality]) -> bool:
        before = len(self._known)
        for one, other, optional in equalities:
            for mine, theirs in ((one, other), (other, one)):
                reached = theirs.constant or (theirs.column in self._known if theirs.column else False)
                if mine.column and reached and (optional is None or mine.column[0] is optional):
                    self._known.add(mine.column)
        for source in self._block.sources:
            if any(all((source, name) in self._known for name in key) for key in source.unique):
                self._known.update((source, name) for name in source.columns)
        return len(self._known) > before

    def undetermined(self, expr: Expr) -> Column | None:
        """The first column in `expr` that may differ within a group."""
        if expr.aggregate or expr.sql in self._keys:
            return None
        if expr.column is not None:
            foreign = expr.column[0] not in self._block.sources
            return None if foreign or expr.column in self._known else expr.column
        return next((found for part in expr.parts if (found := self.undetermined(part))), None)

    def check(self, clause: str, items: Iterable[Expr]) -> None:
        """Raises SqlError for the first item of a clause that is not determined."""
        for number, expr in enumerate(items, 1):
            found = self.undetermined(expr)
            if found is not None:
                raise self._error(clause, number, found[0].full_name(found[1]))

    def _error(self, clause: str, number: int, column: str) -> SqlError:
        if not self._block.groups:
            return SqlError(
                f"In aggregated query without GROUP BY, expression #{number} of {clause} contains nonaggregated column "
                f"'{column}'; this is incompatible with sql_mode=only_full_group_by"
            )
        return SqlError(
            f"Expression #{number} of {clause} is not in GROUP BY clause and contains nonaggregated column '{column}' which is "
            "not functionally dependent on columns in GROUP BY clause; this is incompatible with sql_mode=only_full_group_by"
        )
