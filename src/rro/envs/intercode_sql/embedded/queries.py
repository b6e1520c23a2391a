"""Statements, SELECTs, subqueries and set operations in SQLite's SQL, with their rows in the order in which MySQL gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite

from rro.envs.intercode_sql.embedded.catalogue import Catalogue, Table
from rro.envs.intercode_sql.embedded.expressions import Expressions
from rro.envs.intercode_sql.embedded.names import GROUP, HAVING, ON, ORDER, WHERE, Scope, Source, SqlError, Value, is_aggregate
from rro.envs.intercode_sql.embedded.order import reading_order
from rro.envs.intercode_sql.embedded.values import common_type, comparable, converted, key

MAX_SOURCES = 61  # tables of one statement, as a table of WITH counts wherever it is used
MAX_LENGTH = 200_000  # characters of a translated query
TOO_DEEP = "Thread stack overrun: the statement is nested too deeply"
_SECOND = 1 << 40  # added to the row numbers of a set operation's second query
_generate = SQLite().generator().generate


class Query(NamedTuple):
    """A translated query. Its columns are called c1, c2 ..., and # the number of a row, where that was asked for. `unique`: sets of
    names that identify a row."""

    sql: str
    columns: list[Value]
    unique: Sequence[Sequence[str]] = ()


class Queries(Expressions):
    """Translates the statement `tree`, which runs with `database` in use."""

    def __init__(self, catalogue: Catalogue, database: str, tree: Any) -> None:
        self.database, self._catalogue, self._opened = database, catalogue, 0
        self._common_tables = {cte.alias.lower(): cte for cte in tree.find_all(exp.CTE)}
        for node in tree.find_all(exp.Table):  # MySQL looks at all tables before it looks at names
            if node.db or node.name.lower() not in {*self._common_tables, "dual", ""}:
                self._table(node)

    def query(self, node: Any, outer: Scope | None = None, numbered: bool = False) -> Query:
        """Translate a query. Raises SqlError."""
        if isinstance(node, exp.Subquery):
            if not any(node.args.get(part) for part in ("order", "limit", "offset")):
                return self.query(node.this, outer, numbered)
            return self._sorted(self.query(node.this, outer, True), node, outer, numbered)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer, numbered)
        if not isinstance(node, exp.Select):
            raise SqlError(f"This version of MySQL doesn't yet support '{node.key.upper()}'")
        return self._select(node, outer, numbered)

    # --- SELECT, clause by clause in MySQL's order

    def _select(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        scope, distinct, limit = Scope(outer), node.args.get("distinct"), _limit(node)
        self._open(node, scope)
        self._select_list(node, scope)
        self._condition(node, "where", WHERE, scope)
        self._join_conditions(node, scope)
        self._group(node, scope)
        self._condition(node, "having", HAVING, scope)
        order = self._order(node, scope)
        single = self._check(node, scope, [value.node for value, _ in order])
        order += [(group, "") for group in scope.groups if scope.sorts_groups]
        order = [(value, way) for value, way in order if not scope.is_fixed(value.node)]
        keys = [] if single else [*_keys(order), *reading_order(scope)]
        columns = [exp.alias_(value.node.copy(), f"c{n}") for n, value in enumerate(scope.output, 1)]
        number = [exp.Var(this=_number(keys))] if numbered or distinct else []
        for part in ("with_", "distinct", "order", "limit", "offset"):
            node.set(part, None)
        node.set("expressions", columns + number)
        result = [Value(exp.column(f"c{n}"), value.type, value.name) for n, value in enumerate(scope.output, 1)]
        if distinct:
            return self._once(Query(_sql(node), result), [], limit, numbered, "")
        groups = {group.node for group in scope.groups}
        unique = [value.name.lower() for value in scope.output if value.node in groups]
        sql = f"{_sql(node)}{_order_by(keys)}{limit}"
        return Query(sql, result, [unique] if groups and len(unique) == len(groups) else [])

    def _select_list(self, node: Any, scope: Scope) -> None:
        for item in list(node.expressions):
            if item.is_star:
                scope.output += self._star(item, scope)
            else:
                value = self.value(item.this if isinstance(item, exp.Alias) else item, scope)
                scope.output.append(value._replace(name=item.alias_or_name))

    def _star(self, item: Any, scope: Scope) -> Iterator[Value]:
        table = item.table.lower() if isinstance(item, exp.Column) else ""
        sources = scope.named(table)
        if not sources:
            raise SqlError(f"Unknown table '{item.table}'" if table else "No tables used")
        merged = {} if table else scope.merged
        yield from merged.values()
        for source in sources:
            source.used.update(source.columns)
            yield from (column for name, column in source.columns.items() if name not in merged)

    def _condition(self, node: Any, part: str, clause: str, scope: Scope) -> None:
        scope.clause = clause
        if (condition := node.args.get(part)) is not None:
            self.value(condition.this, scope)

    def _group(self, node: Any, scope: Scope) -> None:
        group, scope.clause = node.args.get("group"), GROUP
        for item in group.expressions if group is not None else ():
            value = self._listed(item, scope)
            if any(map(is_aggregate, value.node.walk())):
                raise SqlError(f"Can't group on '{item.name}'")
            scope.groups.append(value)
        if group is not None:
            keys = [key(value).copy() for value in scope.groups if not scope.is_fixed(value.node)]
            node.set("group", exp.Group(expressions=keys or [exp.Null()]))

    def _order(self, node: Any, scope: Scope) -> list[tuple[Value, str]]:
        order, scope.clause = node.args.get("order"), ORDER
        items = order.expressions if order is not None else ()
        return [(self._listed(item.this, scope), " DESC" if item.args.get("desc") else "") for item in items]

    def _listed(self, node: Any, scope: Scope) -> Value:
        """An item of GROUP BY or ORDER BY: a number counts the select list, and in the latter a name is first one of it."""
        if node.is_int:
            if not 1 <= int(node.name) <= len(scope.output):
                raise SqlError(f"Unknown column '{node.name}' in '{scope.clause}'")
            return scope.output[int(node.name) - 1]
        if scope.clause == ORDER and isinstance(node, exp.Column) and not node.table:
            if (found := scope.selected(node.name.lower())) is not None:
                return found
        return self.value(node, scope)

    def _check(self, node: Any, scope: Scope, order: Sequence[Any]) -> bool:
        """Check the groups. Whether all rows are one group."""
        shown, having = [value.node for value in scope.output], node.args.get("having")
        nodes = [*shown, *order, *([having] if having is not None else [])]
        aggregated = any(is_aggregate(part) for node in nodes for part in node.walk())
        if having is not None and not aggregated and not scope.groups:  # then it is one more condition on rows
            node.where(having.this, copy=False).set("having", None)
        if aggregated or scope.groups:
            scope.check_groups("SELECT list", shown)
            scope.check_groups("ORDER BY clause", order if scope.groups else [])
        elif node.args.get("distinct"):
            scope.check_distinct(order)
        return aggregated and not scope.groups

    # --- FROM

    def _open(self, node: Any, scope: Scope) -> None:
        """Open the tables and subqueries of a SELECT, each with its name in SQLite in its place."""
        clause = node.args.get("from_")
        if clause is not None and isinstance(clause.this, exp.Table) and clause.this.name.lower() == "dual":
            node.set("from_", None)
            return
        joins = node.args.get("joins") or []
        for place, joined in enumerate([clause, *joins] if clause is not None else []):
            source = self._source(joined.this, scope)
            if any(source.name.lower() == other.name.lower() for other in scope.sources):
                raise SqlError(f"Not unique table/alias: '{source.name}'")
            scope.sources.append(source)
            if place and joined.side == "LEFT":
                source.after = scope.sources[:place]
            if place and (joined.args.get("using") or joined.method == "NATURAL"):
                self._merge(joined, source, scope)
        scope.visible = scope.sources

    def _merge(self, join: Any, source: Source, scope: Scope) -> None:
        """USING, and NATURAL: conditions that columns of the same name are equal."""
        before = {name: column for other in scope.sources[:-1] for name, column in other.columns.items()}
        names = [name.name.lower() for name in join.args.get("using") or ()] or [n for n in source.columns if n in before]
        conditions = []
        for name in names:
            if name not in before or name not in source.columns:
                raise SqlError(f"Unknown column '{name}' in 'from clause'")
            one, other = before[name], source.columns[name]
            scope.merged[name] = other if join.side == "RIGHT" else one
            scope.equate(one.node, other.node)
            conditions.append(" = ".join(map(_sql, comparable(one, other))))
        join.set("using", None)
        join.set("method", None)
        join.set("on", exp.Var(this=" AND ".join(conditions) or "1"))

    def _join_conditions(self, node: Any, scope: Scope) -> None:
        """ON sees what stands before it."""
        scope.clause = ON
        for place, join in enumerate(node.args.get("joins") or (), 1):
            condition = join.args.get("on")
            if condition is not None and not isinstance(condition, exp.Var):
                scope.visible = scope.sources[: place + 1]
                scope.optional = scope.sources[place if join.side == "LEFT" else 0].alias if join.side else ""
                self.value(condition, scope)
        scope.visible, scope.optional = scope.sources, ""

    def _source(self, node: Any, scope: Scope) -> Source:
        self._opened += 1
        if self._opened > MAX_SOURCES:
            raise SqlError("Too many tables; MySQL can only use 61 tables in a join")
        alias, name = f"t{self._opened}", node.alias_or_name
        if isinstance(node, exp.Table):
            common = self._common_tables.get(node.name.lower()) if not node.db else None
            if common is None:
                return _table_source(self._table(node), node, alias)
            inner, names = common.this.copy(), [column.name for column in common.args["alias"].columns]
        elif isinstance(node.this, exp.Query):
            inner, names = node.this, []
        else:
            raise SqlError("This version of MySQL doesn't yet support 'joins in brackets'")
        if not name:
            raise SqlError("Every derived table must have its own alias")
        query = self.query(inner, scope.outer, True)
        columns = {}
        for place, value in enumerate(query.columns):
            written = names[place] if place < len(names) else value.name
            if written.lower() in columns:
                raise SqlError(f"Duplicate column name '{written}'")
            columns[written.lower() or str(place)] = Value(exp.column(f"c{place + 1}", alias), value.type, written)
        node.replace(exp.Var(this=f"({query.sql}) AS {alias}"))
        return Source(alias, name, columns, query.unique)

    def _table(self, node: Any) -> Table:
        database = node.db.lower() or self.database
        if database not in self._catalogue:
            raise SqlError(f"Unknown database '{database}'" if database else "No database selected")
        table = self._catalogue[database].get(node.name.lower())
        if table is None:
            raise SqlError(f"Table '{database}.{node.name.lower()}' doesn't exist")
        return table

    # --- set operations, and what is sorted or made distinct afterwards

    def _set_operation(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        left, right = self.query(node.this, outer, True), self.query(node.expression, outer, True)
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        pairs = list(zip(left.columns, right.columns, strict=True))
        kinds = [common_type([one.type, other.type]) for one, other in pairs]
        sides = [", ".join(f"{_sql(converted(pair[side], kind))} AS c{n}" for n, (pair, kind) in enumerate(zip(pairs, kinds, strict=True), 1)) for side in (0, 1)]
        sql = f'SELECT {sides[0]}, "#" FROM ({left.sql}) UNION ALL SELECT {sides[1]}, "#" + {_SECOND} FROM ({right.sql})'
        columns = [column._replace(type=kind) for column, kind in zip(left.columns, kinds, strict=True)]
        second = f'sum("#" >= {_SECOND})'
        having = {"except": f" HAVING NOT {second}", "intersect": f' HAVING {second} AND min("#") < {_SECOND}'}.get(node.key, "")
        every = isinstance(node, exp.Union) and not node.args.get("distinct")
        return self._sorted(Query(sql, columns), node, outer, numbered, None if every else having)

    def _sorted(self, query: Query, node: Any, outer: Scope | None, numbered: bool, having: str | None = None) -> Query:
        """A query with the ORDER BY and LIMIT of `node`, and as in `_once`."""
        source = Source("", "", {column.name.lower(): column for column in query.columns})
        scope = Scope(outer, [source], [source], output=query.columns)
        return self._once(query, _keys(self._order(node, scope)), _limit(node), numbered, having)

    def _once(self, query: Query, keys: list[str], limit: str, numbered: bool, having: str | None) -> Query:
        """A query's rows by `keys` and their numbers; the first of those that are the same if their group has `having` (None: all)."""
        group = "" if having is None else f" GROUP BY {', '.join(_sql(key(column)) for column in query.columns)}{having}"
        keys = [*keys, '"#"' if having is None else 'min("#")']
        shown = [column.node.name for column in query.columns] + ([_number(keys)] if numbered else [])
        return query._replace(sql=f"SELECT {', '.join(shown)} FROM ({query.sql}){group}{_order_by(keys)}{limit}")


def _table_source(table: Table, node: Any, alias: str) -> Source:
    columns = {
        name: Value(exp.Column(this=exp.to_identifier(column.name, quoted=True), table=exp.to_identifier(alias), stored=True), column.type, column.name)
        for name, column in table.columns.items()
    }
    source = Source(alias, node.alias_or_name, columns, [i.columns for i in table.indexes if i.unique], table.rows, table)
    node.replace(exp.Var(this=f"{table.stored_as} AS {alias}"))
    return source


def _sql(node: Any) -> str:
    text = _generate(node)
    if len(text) > MAX_LENGTH:
        raise SqlError(TOO_DEEP)
    return text


def _keys(order: Sequence[tuple[Value, str]]) -> list[str]:
    return [_sql(key(value)) + way for value, way in order]


def _number(keys: Sequence[str]) -> str:
    return f'row_number() OVER ({_order_by(keys).strip()}) AS "#"'


def _order_by(keys: Sequence[str]) -> str:
    return f" ORDER BY {', '.join(keys)}" if keys else ""


def _limit(node: Any) -> str:
    """LIMIT and OFFSET, which must be plain numbers."""
    words = ""
    for part in ("limit", "offset"):
        if (clause := node.args.get(part)) is not None:
            if not clause.expression.is_int:
                raise SqlError(f"Undeclared variable: {clause.expression.name}")
            words += f" {part.upper()} {min(int(clause.expression.name), 2**62)}"
    return words
