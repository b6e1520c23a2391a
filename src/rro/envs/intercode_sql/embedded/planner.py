"""The order in which MySQL reads the rows of a join: its planner in outline, with its constants of cost.

Without ORDER BY, and among equals with it, rows come as they are read; InterCode's reward counts that order. So this
module guesses the order of the tables and the index that each is read by. A wrong guess gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rro.envs.intercode_sql.embedded.names import Expr, Source
from rro.envs.intercode_sql.embedded.schema import Index

PAGE, ROW = 0.25, 0.1  # cost of a page in memory, and of looking at a row
PAGE_BYTES = 16_384
MOST_TABLES = 6  # whose orders are all tried
Column = tuple[Source, str]


@dataclass
class Conditions:
    """What is known of a block's sources: `same` are columns that equal each other, `fixed` those that equal a constant,
    `ranges` those that are compared with constants otherwise; `share` is the part of a source's rows that its conditions leave."""

    same: list[set[Column]] = field(default_factory=list)
    fixed: set[Column] = field(default_factory=set)
    ranges: set[Column] = field(default_factory=set)
    share: dict[Source, float] = field(default_factory=dict)

    def equate(self, one: Expr, other: Expr) -> None:
        if one.column and other.column:
            joined = {one.column, other.column}
            for known in [group for group in self.same if group & joined]:
                joined |= known
                self.same.remove(known)
            self.same.append(joined)
        for mine, theirs in ((one, other), (other, one)):
            if mine.column and theirs.constant:
                self.fixed.add(mine.column)
                self.keep(mine.column[0], 0.1)

    def keep(self, source: Source, share: float) -> None:
        self.share[source] = self.share.get(source, 1.0) * share

    def bound(self, column: Column, known: set[Source]) -> bool:
        """Whether a column equals a constant or a column of sources already read."""
        if column in self.fixed:
            return True
        return any(
            column in group and any(other[0] in known for other in group if other != column) for group in self.same
        )


@dataclass(frozen=True)
class Step:
    """One table of a plan: the rows it gives for each row before it, what that costs, and whether it is hashed."""

    source: Source
    fanout: float
    cost: float
    hashed: bool = False


class Planner:
    """Plans one block. `statistics`: rows per value of the first columns of an index, by (table, index)."""

    def __init__(self, statistics: Mapping[tuple[str, str], Sequence[float]], conditions: Conditions) -> None:
        self._statistics, self._conditions = statistics, conditions

    def reading_order(
        self, sources: Sequence[Source], after: Mapping[Source, set[Source]], grouping: Sequence[Expr]
    ) -> list[str]:
        """The sort keys that bring joined rows into the order of reading. `after`: what an outer join's inner tables must
        follow; `grouping`: by what the rows are grouped at once, where an index may give the groups in its order."""
        steps = self._plan(sources, after)
        keys: list[tuple[str, bool]] = []
        for place, step in enumerate(steps):
            number = self._numbers(step.source, grouping if place == 0 else ())
            if not step.hashed:
                keys.append((number, False))
            elif step.source.optional:  # rows with the same key leave the hash table in reverse
                keys.append((number, True))
            else:
                keys = [(number, False), *((key, not down) for key, down in keys)]
        return [f"{key} DESC" if down else key for key, down in keys]

    # --- the order of the tables

    def _plan(self, sources: Sequence[Source], after: Mapping[Source, set[Source]]) -> list[Step]:
        start = sorted(sources, key=lambda source: (not self._is_single(source), source.rows))
        if len(sources) > MOST_TABLES:
            start = list(sources)
        best: tuple[float, list[Step]] = (float("inf"), [])
        searched = 1 if len(sources) > MOST_TABLES else None

        def extend(steps: list[Step], left: list[Source], rows: float, cost: float) -> None:
            nonlocal best
            if cost >= best[0]:
                return
            if not left:
                best = cost, steps
                return
            known = {step.source for step in steps}
            for source in left[:searched]:
                if after.get(source, set()) <= known:
                    step = self._step(source, known, rows)
                    passed = rows * step.fanout
                    rest = [other for other in left if other is not source]
                    share = 1.0 if source.optional else self._conditions.share.get(source, 1.0)
                    extend([*steps, step], rest, max(passed * share, 1e-3), cost + step.cost + passed * ROW)

        extend([], start, 1.0, 0.0)
        return best[1]

    def _is_single(self, source: Source) -> bool:
        """A table of one row, or of which a unique key picks one: MySQL reads it first."""
        if source.optional:
            return False
        return source.rows <= 1 or any(
            all((source, part) in self._conditions.fixed for part in key) for key in source.unique
        )

    def _step(self, source: Source, known: set[Source], before: float) -> Step:
        """The cheapest way to read a source after `known`, for `before` rows."""
        options = []
        for index in source.table.indexes if source.table else ():
            bound = 0
            while bound < len(index.parts) and self._conditions.bound((source, index.parts[bound]), known):
                bound += 1
            if not bound:
                continue
            if index.unique and bound == len(index.parts):
                options.append(Step(source, 1.0, before * PAGE))
                continue
            rows = self._per_key(source, index)[bound - 1]
            pages = 1 + rows / 400 if self._covers(source, index) else rows
            worst = max(min(source.rows / 10, self._pages(source) * 3), 2.0)
            options.append(Step(source, rows, before * min(pages, worst) * PAGE))
        scan = self._pages(source) * PAGE
        if not known:
            options.append(Step(source, source.rows, scan))
        else:
            share = self._conditions.share.get(source, 1.0)
            options.append(Step(source, source.rows * share, scan + source.rows * (1 - share) * ROW, hashed=True))
        return min(options, key=lambda step: step.cost + before * step.fanout * ROW)

    def _per_key(self, source: Source, index: Index) -> Sequence[float]:
        assert source.table is not None
        return self._statistics.get((source.table.stored_as, index.numbers)) or [float(source.rows)] * len(index.parts)

    def _pages(self, source: Source) -> float:
        return max(1.0, source.rows * 60 / PAGE_BYTES)

    # --- the order within a table

    def _numbers(self, source: Source, grouping: Sequence[Expr]) -> str:
        """The column that numbers a source's rows as they are read: by an index that groups, that holds all that is needed
        of the table, or by the table itself."""
        if source.table is None:
            return source.order
        wanted = [expr.column for expr in grouping]
        for index in source.table.indexes:
            if wanted and self._groups(source, index, wanted):
                return self._column(source, index)
        covering = [index for index in source.table.indexes if not index.primary and self._covers(source, index)]
        for index in covering:
            first = (source, index.parts[0])
            if first in self._conditions.ranges or first in self._conditions.fixed:
                return self._column(source, index)
        if not covering or any((source, part) in self._conditions.ranges for part in self._primary(source)):
            return source.order
        return self._column(source, min(covering, key=lambda index: self._width(source, index)))

    def _groups(self, source: Source, index: Index, wanted: Sequence[Column | None]) -> bool:
        """Whether the columns of GROUP BY, or columns equal to them, are the first of the index."""
        mine = []
        for column in wanted:
            same = next((group for group in self._conditions.same if column in group), {column})
            mine.append(next((part for known, part in filter(None, same) if known is source), None))
        return len(mine) <= len(index.parts) and set(mine) == set(index.parts[: len(mine)])

    def _covers(self, source: Source, index: Index) -> bool:
        """Whether an index holds all columns that the statement uses of a table; it holds those of the primary key, too."""
        return source.used <= {*index.parts, *self._primary(source)}

    def _primary(self, source: Source) -> tuple[str, ...]:
        return source.table.primary.parts if source.table and source.table.primary else ()

    def _width(self, source: Source, index: Index) -> int:
        assert source.table is not None
        return sum(source.table.by_name[part].width for part in index.parts)

    def _column(self, source: Source, index: Index) -> str:
        return f'{source.alias}."{index.numbers}"'
