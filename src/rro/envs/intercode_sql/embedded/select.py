"""One SELECT: its clauses resolved in MySQL's order, its groups checked, and the whole in SQLite's SQL, with sort keys that
bring the rows into the order in which MySQL would give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlglot import exp

from rro.envs.intercode_sql.embedded.grouping import Dependence
from rro.envs.intercode_sql.embedded.joins import Joins
from rro.envs.intercode_sql.embedded.names import GROUP, HAVING, ORDER, SELECT_LIST, WHERE, Block, Expr, Query, Source
from rro.envs.intercode_sql.embedded.planner import Planner
from rro.envs.intercode_sql.embedded.syntax import SqlError
from rro.envs.intercode_sql.embedded.values import truth


class Select:
    """A SELECT on its way. `statistics` are the catalogue's."""

    def __init__(
        self,
        node: Any,
        outer: Block | None,
        translate: Callable[[Any, Block], Expr],
        open_source: Callable[[Any, Block | None], tuple[Source, str]],
        statistics: Mapping[tuple[str, str], Sequence[float]],
    ) -> None:
        self._node, self._translate, self._statistics = node, translate, statistics
        self._block = Block(outer)
        self._joins = Joins(self._block, open_source)

    def query(self, numbered: bool) -> Query:
        """Resolve clause by clause in MySQL's order, then put the query together."""
        node, block = self._node, self._block
        self._joins.open(node)
        block.aggregates = True
        self._select_list(node)
        block.aggregates = False
        where = self._condition(node.args.get("where"), WHERE)
        self._joins.resolve(self._translate)
        self._group(node)
        block.aggregates = True
        having = self._condition(node.args.get("having"), HAVING)
        block.place = ORDER
        order = [(by_position(item.this, block, self._translate), direction(item)) for item in order_of(node)]
        self._check_groups(having, [expr for expr, _ in order])
        return self._built(where, having, [expr.by + way for expr, way in order if not self._is_fixed(expr)], numbered)

    # --- clauses

    def _select_list(self, node: Any) -> None:
        block = self._block
        block.place = SELECT_LIST
        block.later = [item.alias.lower() for item in node.expressions if isinstance(item, exp.Alias)]
        for item in node.expressions:
            if item.is_star:
                block.output += self._star(item)
                continue
            inner = item.this if isinstance(item, exp.Alias) else item
            name = item.alias if isinstance(item, exp.Alias) else _name_of(inner)
            block.output.append((name, self._translate(inner, block)))
        block.later = ()

    def _star(self, item: Any) -> Iterator[tuple[str, Expr]]:
        block, whole = self._block, isinstance(item, exp.Column)
        sources = list(block.named(item.table, item.db)) if whole else block.sources
        if not sources:
            raise SqlError(f"Unknown table '{item.table}'" if whole else "No tables used")
        if not whole:
            yield from ((expr.column[0].columns[name][0], expr) for name, expr in block.shared.items() if expr.column)
        for source in sources:
            source.used.update(source.columns)
            yield from (column for name, column in source.columns.items() if whole or name not in block.shared)

    def _condition(self, clause: Any, place: str) -> Expr | None:
        if clause is None:
            return None
        self._block.place = place
        expr = self._translate(clause.this, self._block)
        if place == WHERE:
            self._joins.note(clause.this, None, self._translate)
        return expr

    def _group(self, node: Any) -> None:
        group, block = node.args.get("group"), self._block
        if group is None:
            return
        if group.args.get("rollup"):
            raise SqlError("This version of MySQL doesn't yet support 'WITH ROLLUP'")
        block.place = GROUP
        for item in group.expressions:
            expr = by_position(item, block, self._translate)
            if expr.aggregated:
                raise SqlError(f"Can't group on '{item.name}'")
            block.groups.append(expr)

    def _check_groups(self, having: Expr | None, order: Sequence[Expr]) -> None:
        block = self._block
        shown = [expr for _, expr in block.output]
        if block.groups or any(expr.aggregated for expr in (*shown, *order, *([having] if having else []))):
            dependence = Dependence(block, self._joins.equalities)
            dependence.check("SELECT list", shown)
            dependence.check("ORDER BY clause", order if block.groups else ())
        elif self._node.args.get("distinct"):
            listed = {expr.sql for expr in shown}
            for number, expr in enumerate(order, 1):
                if (column := _unlisted(expr, listed)) is not None:
                    raise SqlError(
                        f"Expression #{number} of ORDER BY clause is not in SELECT list, references column "
                        f"'{column[0].full_name(column[1])}' which is not in SELECT list; this is incompatible with DISTINCT"
                    )

    # --- putting together

    def _built(self, where: Expr | None, having: Expr | None, order: list[str], numbered: bool) -> Query:
        block, node = self._block, self._node
        shown = [expr for _, expr in block.output]
        grouped, distinct = bool(block.groups), bool(node.args.get("distinct"))
        single = not grouped and any(expr.aggregated for expr in (*shown, *([having] if having else [])))
        if having is not None and not grouped and not single:  # then it is one more condition on rows
            where, having = (having if where is None else _both(where, having)), None
        by_rows = distinct and not (grouped or single or block.windows)  # DISTINCT is a grouping by all columns
        body = self._joins.sql() + (f" WHERE {truth(where)}" if where else "")
        if grouped or by_rows:
            own = [expr.by for expr in (block.groups if grouped else shown) if not self._is_fixed(expr)]
            body += f" GROUP BY {', '.join(own) or 'NULL'}"
        body += f" HAVING {truth(having)}" if having is not None else ""
        keys = [] if single else [*order, *self._implied(order), *self._scan(grouped or by_rows)]
        columns = [f"{expr.sql} AS c{place}" for place, expr in enumerate(shown, 1)]
        result = [(name, Expr(f"c{n}", expr.type)) for n, (name, expr) in enumerate(block.output, 1)]
        limit = limit_of(node)
        if distinct and not single and not by_rows:
            return _distinct(columns, body, keys, limit, result, numbered)
        if numbered:
            columns.append(f'row_number() OVER (ORDER BY {", ".join(keys)}) AS "#"' if keys else '1 AS "#"')
        sort = f" ORDER BY {', '.join(keys)}" if keys else ""
        sql = f"SELECT {', '.join(columns)}{body}{sort}{limit}"
        return Query(sql, result, single or limit == " LIMIT 1" or not self._joins.trees, self._unique())

    def _implied(self, order: Sequence[str]) -> list[str]:
        """What MySQL sorts by unasked: groups for DISTINCT within them, rows for windows."""
        if self._block.sorts_groups:
            return [expr.by for expr in self._block.groups if not self._is_fixed(expr)]
        return [] if order else self._block.windows

    def _scan(self, grouped: bool) -> list[str]:
        """The sort keys that bring rows, or groups by their first rows, into the order of reading."""
        block, sources = self._block, self._block.sources
        grouping = block.groups or ([expr for _, expr in block.output] if grouped and len(sources) == 1 else [])
        planner = Planner(self._statistics, self._joins.conditions)
        keys = planner.reading_order(sources, self._joins.after(), grouping)
        if not grouped or not keys:
            # the plus keeps SQLite from reading a join in this order, when another with a sort is faster by far
            return [f"+{key}" for key in keys] if len(keys) > 1 else keys
        rows = {source.alias: source.rows for source in sources}
        number = ""
        for key in keys:
            plain, count = key.removesuffix(" DESC"), rows[key.partition(".")[0]]
            place = f"coalesce({plain}, 0)" if plain == key else f"({count} - coalesce({plain}, 0))"
            number = f"({number}) * {count + 1} + {place}" if number else place
        return [f"min({number})"]

    def _is_fixed(self, expr: Expr) -> bool:
        """A constant, or a column of a block around this one: SQLite would take the former for a position in GROUP BY and
        ORDER BY, and does not know the latter there."""
        return expr.constant or (expr.column is not None and expr.column[0] not in self._block.sources)

    def _unique(self) -> list[list[str]]:
        """The columns that identify a row of the result, where it is grouped by them."""
        groups = {expr.sql for expr in self._block.groups}
        names = [name.lower() for name, expr in self._block.output if expr.sql in groups]
        return [names] if groups and len(names) == len(groups) else []


def _both(one: Expr, other: Expr) -> Expr:
    return Expr(f"({truth(one)} AND {truth(other)})", other.type)


def _distinct(
    columns: list[str], body: str, keys: list[str], limit: str, result: list[tuple[str, Expr]], numbered: bool
) -> Query:
    """DISTINCT over groups or windows: number the rows, then keep the first of each."""
    number = f"row_number() OVER (ORDER BY {', '.join(keys)})" if keys else "1"
    names, same = (", ".join(getattr(expr, part) for _, expr in result) for part in ("sql", "by"))
    last = ', row_number() OVER (ORDER BY min("#")) AS "#"' if numbered else ""
    inner = f'SELECT {", ".join(columns)}, {number} AS "#"{body}'
    return Query(f'SELECT {names}{last} FROM ({inner}) GROUP BY {same} ORDER BY min("#"){limit}', result)


def by_position(node: Any, block: Block, translate: Callable[[Any, Block], Expr]) -> Expr:
    """An expression of GROUP BY or ORDER BY, where numbers count the select list, and in the latter names are its first."""
    if isinstance(node, exp.Literal) and not node.is_string and node.this.isdigit():
        number = int(node.this)
        if not 1 <= number <= len(block.output):
            raise SqlError(f"Unknown column '{number}' in '{block.place}'")
        return block.output[number - 1][1]
    if isinstance(node, exp.Column) and block.place == ORDER and not isinstance(node.this, exp.Star):
        found = block.selected(node.name, node.table)
        if found is not None:
            return found
    return translate(node, block)


def order_of(node: Any) -> Sequence[Any]:
    order = node.args.get("order")
    return order.expressions if order is not None else ()


def direction(item: Any) -> str:
    return " DESC" if item.args.get("desc") else ""


def limit_of(node: Any) -> str:
    """LIMIT and OFFSET, which must be plain numbers."""
    numbers = []
    for clause in (node.args.get("limit"), node.args.get("offset")):
        count = clause.expression if clause is not None else None
        if count is not None and not (isinstance(count, exp.Literal) and not count.is_string and count.this.isdigit()):
            raise SqlError(f"Undeclared variable: {count.name}")
        numbers.append(None if count is None else min(int(count.this), 2**62))
    limit, offset = numbers
    if limit is None and offset is None:
        return ""
    return f" LIMIT {-1 if limit is None else limit}" + ("" if offset is None else f" OFFSET {offset}")


def _name_of(node: Any) -> str:
    return str(node.name if isinstance(node, exp.Column) else node.sql("mysql").replace("~", ""))


def _unlisted(expr: Expr, listed: set[str]) -> tuple[Source, str] | None:
    """The first column of an expression that is not in the select list."""
    if expr.sql in listed:
        return None
    return expr.column or next((found for part in expr.parts if (found := _unlisted(part, listed))), None)
