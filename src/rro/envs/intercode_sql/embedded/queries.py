"""Statements, subqueries and set operations in SQLite's SQL, with the rows in the order MySQL gives them.

MySQL's order without ORDER BY is that of its plan. Here every source numbers its rows, and the numbers are the last sort
keys of every query; groups and distinct rows come in the order in which they are first met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlglot import exp

from rro.envs.intercode_sql.embedded import calls
from rro.envs.intercode_sql.embedded.expressions import Expressions
from rro.envs.intercode_sql.embedded.names import MAX_LENGTH, ORDER, Block, Expr, Query, Source
from rro.envs.intercode_sql.embedded.schema import Catalogue, Kind, Table
from rro.envs.intercode_sql.embedded.select import Select, by_position, direction, limit_of, order_of
from rro.envs.intercode_sql.embedded.store import INFORMATION, key_name, quoted
from rro.envs.intercode_sql.embedded.syntax import TOO_DEEP, Node, SqlError, called
from rro.envs.intercode_sql.embedded.values import common_type, converted

_GUESS = 100  # rows of a subquery
_BRANCH = 1 << 32  # between the row numbers of a set operation's sides


class Queries:
    """Translates statements that run with `database` in use."""

    def __init__(self, catalogue: Catalogue, database: str) -> None:
        self._catalogue, self._database = catalogue, database
        self._expressions = Expressions(database, lambda node, block: self.query(node, block, numbered=False))
        self._sources = 0
        self._with: list[dict[str, Any]] = []  # tables of WITH by name, innermost last

    def statement(self, tree: Node) -> Query:
        """A whole statement. Raises SqlError with MySQL's message."""
        self._check(list(tree.walk(bfs=False)))
        return self.query(tree, None, numbered=False)

    # --- before names are resolved

    def _check(self, nodes: Sequence[Node]) -> None:
        """What MySQL refuses at once: forms, then tables, then functions, each in the order of the text."""
        for node in nodes:
            if isinstance(node, exp.Subquery | exp.In | exp.Any | exp.All):
                _check_form(node)
        temporary = {node.alias.lower() for node in nodes if isinstance(node, exp.CTE)} | {"dual", ""}
        for node in nodes:
            if isinstance(node, exp.Table) and (node.db or node.name.lower() not in temporary):
                self._check_table(node)
        for node in nodes:
            if isinstance(node, exp.Anonymous) and not calls.known(called(node)):
                raise SqlError(f"FUNCTION {self._database}.{called(node, as_written=True)} does not exist")

    def _check_table(self, node: exp.Table) -> None:
        name, database = node.name.lower(), node.db.lower() or self._database
        if not database:
            raise SqlError("No database selected")
        if database not in self._catalogue.databases:
            raise SqlError(f"Unknown database '{database}'")
        if self._catalogue.table(database, name) is None:
            if database == INFORMATION:
                raise SqlError(f"Unknown table '{name.upper()}' in {INFORMATION}")
            raise SqlError(f"Table '{database}.{name}' doesn't exist")

    # --- queries

    def query(self, node: Any, outer: Block | None, numbered: bool) -> Query:
        """A SELECT, a set operation or either in brackets."""
        clause = node.args.get("with_")
        tables = {cte.alias.lower(): cte for cte in clause.expressions} if clause is not None else {}
        if clause is not None and clause.args.get("recursive") and any(map(_is_recursive, tables.values())):
            raise SqlError("This version of MySQL doesn't yet support 'WITH RECURSIVE'")
        self._with.append(tables)
        try:
            query = self._translated(node, outer, numbered)
        finally:
            self._with.pop()
        if len(query.sql) > MAX_LENGTH:  # tables of WITH are written out wherever they are used
            raise SqlError(TOO_DEEP)
        return query

    def _translated(self, node: Any, outer: Block | None, numbered: bool) -> Query:
        if isinstance(node, exp.Subquery):
            return self._bracketed(node, outer, numbered)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer, numbered)
        if isinstance(node, exp.Select):
            translate = self._expressions.translate
            return Select(node, outer, translate, self._source, self._catalogue.statistics).query(numbered)
        raise SqlError(f"This version of MySQL doesn't yet support '{type(node).__name__.upper()}'")

    def _bracketed(self, node: Any, outer: Block | None, numbered: bool) -> Query:
        if not any(node.args.get(part) for part in ("order", "limit", "offset")):
            return self.query(node.this, outer, numbered)
        return self._sorted(node, self.query(node.this, outer, numbered=True), outer, numbered, None)

    def _set_operation(self, node: Any, outer: Block | None, numbered: bool) -> Query:
        left, right = self.query(node.this, outer, numbered=True), self.query(node.expression, outer, numbered=True)
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        columns, mine, theirs = [], [], []
        for place, ((name, one), (_, other)) in enumerate(zip(left.columns, right.columns, strict=True), 1):
            kind = common_type([one.type, other.type])
            columns.append((name, Expr(f"c{place}", kind)))
            mine.append(f"{converted(Expr(f'c{place}', one.type), kind)} AS c{place}")
            theirs.append(f"{converted(Expr(f'c{place}', other.type), kind)} AS c{place}")
        first = f'SELECT {", ".join(mine)}, "#" FROM ({left.sql})'
        second = f'SELECT {", ".join(theirs)}, "#" + {_BRANCH} FROM ({right.sql})'
        inner = Query(f"{first} UNION ALL {second}", columns)
        distinct = bool(node.args.get("distinct"))
        if isinstance(node, exp.Union):
            return self._sorted(node, inner, outer, numbered, "" if distinct else None)
        # no max("#") here: beside the one min("#"), SQLite shows the other columns of the first row
        right_too = f'sum("#" >= {_BRANCH})'
        having = f'min("#") < {_BRANCH} AND {right_too}' if isinstance(node, exp.Intersect) else f"NOT {right_too}"
        return self._sorted(node, inner, outer, numbered, having)

    def _sorted(self, node: Any, inner: Query, outer: Block | None, numbered: bool, having: str | None) -> Query:
        """Numbered rows sorted and limited; and each once, if all that are the same satisfy `having` (None: all rows)."""
        names = {name.lower(): (name, expr) for name, expr in reversed(inner.columns)}
        block = Block(outer, [Source("u", "", "", names, '"#"', _GUESS)], place=ORDER, output=inner.columns)
        keys = [by_position(i.this, block, self._expressions.translate).by + direction(i) for i in order_of(node)]
        keys.append('"#"' if having is None else 'min("#")')
        group = "" if having is None else f" GROUP BY {', '.join(expr.by for _, expr in inner.columns)}"
        group += f" HAVING {having}" if having else ""
        shown = [f"{expr.sql} AS c{place}" for place, (_, expr) in enumerate(inner.columns, 1)]
        if numbered:
            shown.append(f'row_number() OVER (ORDER BY {", ".join(keys)}) AS "#"')
        sql = f"SELECT {', '.join(shown)} FROM ({inner.sql}){group} ORDER BY {', '.join(keys)}{limit_of(node)}"
        return Query(sql, [(name, Expr(f"c{n}", expr.type)) for n, (name, expr) in enumerate(inner.columns, 1)])

    # --- sources

    def _source(self, node: Any, outer: Block | None) -> tuple[Source, str]:
        """A table or subquery of FROM, and its text."""
        self._sources += 1
        alias = f"t{self._sources}"
        if not isinstance(node, exp.Table):
            return _subquery_source(self.query(node.this, outer, numbered=True), node.alias, alias)
        query = None if node.db else self._common_table(node.name)
        if query is not None:
            return _subquery_source(query, node.alias or node.name, alias)
        table = self._catalogue.table(node.db or self._database, node.name)
        if table is None:  # a table of WITH that is out of sight here
            raise SqlError(f"Table '{self._database}.{node.name.lower()}' doesn't exist")
        return _table_source(table, node.alias or node.name, alias), f"{quoted(table.stored_as)} AS {alias}"

    def _common_table(self, name: str) -> Query | None:
        """A table of WITH, translated wherever it is used. It sees the tables of WITH around it, and those before it."""
        for depth in range(len(self._with) - 1, -1, -1):
            cte = self._with[depth].get(name.lower())
            if cte is not None:
                inner = self._with
                before = list(inner[depth]).index(name.lower())
                self._with = [*inner[:depth], dict(list(inner[depth].items())[:before])]
                try:
                    return _renamed(self.query(cte.this, None, numbered=True), cte)
                finally:
                    self._with = inner
        return None


def _check_form(node: Any) -> None:
    if isinstance(node, exp.Subquery):
        if isinstance(node.parent, exp.From | exp.Join) and not node.alias and isinstance(node.this, exp.Query):
            raise SqlError("Every derived table must have its own alias")
        return
    inner = node.args.get("query") or node.this
    inner = inner.unnest() if isinstance(inner, exp.Subquery) else inner
    if isinstance(inner, exp.Query) and inner.args.get("limit") is not None:
        raise SqlError("This version of MySQL doesn't yet support 'LIMIT & IN/ALL/ANY/SOME subquery'")


def _is_recursive(cte: Any) -> bool:
    return any(table.name.lower() == cte.alias.lower() for table in cte.this.find_all(exp.Table))


def _renamed(query: Query, cte: Any) -> Query:
    names = [column.name for column in cte.args["alias"].args.get("columns") or ()]
    if names and len(names) != len(query.columns):
        raise SqlError(
            "In definition of view, derived table or common table expression, SELECT list and column names list have "
            "different column counts"
        )
    if names:
        query.columns = [(new, expr) for new, (_, expr) in zip(names, query.columns, strict=True)]
    return query


def _table_source(table: Table, name: str, alias: str) -> Source:
    columns: dict[str, tuple[str, Expr]] = {}
    unique = [index.parts for index in table.indexes if index.unique]
    source = Source(alias, table.database, name, columns, f'{alias}."#"', table.rows, unique, table)
    for lowered, column in table.by_name.items():
        key = f"{alias}.{quoted(key_name(column))}" if column.type.kind is Kind.TEXT else ""
        columns[lowered] = (
            column.name,
            Expr(f"{alias}.{quoted(column.name)}", column.type, key, column=(source, lowered)),
        )
    return source


def _subquery_source(query: Query, name: str, alias: str) -> tuple[Source, str]:
    columns: dict[str, tuple[str, Expr]] = {}
    source = Source(alias, "", name, columns, f'{alias}."#"', _GUESS, query.unique)
    for place, (column, expr) in enumerate(query.columns, 1):
        if column.lower() in columns:
            raise SqlError(f"Duplicate column name '{column}'")
        columns[column.lower()] = column, Expr(f"{alias}.c{place}", expr.type, column=(source, column.lower()))
    return source, f"({query.sql}) AS {alias}"
