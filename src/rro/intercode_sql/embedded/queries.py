"""Translates SELECTs, subqueries and set operations to SQLite's SQL, with the rows in MySQL's
order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ErrorLevel, UnsupportedError

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.expressions import Expressions, as_text, comparable, key
from rro.intercode_sql.embedded.names import Scope, Source, Value
from rro.intercode_sql.embedded.order import reading_order
from rro.intercode_sql.embedded.store import TEXT, Catalogue, Table, common_type
from rro.intercode_sql.engine import SqlError

# Tables of one statement. One of WITH counts each time it is used.
MAX_SOURCES = 61
# Columns of all SELECTs of one statement.
MAX_COLUMNS = 4096
# Added to the row numbers of the second query of a set operation.
_SECOND = 1 << 40
_generate = SQLite().generator(unsupported_level=ErrorLevel.RAISE).generate
_text = MySQL().generator().generate
# The parts of SQLGlot's nodes that are translated here. Any other would be lost.
_QUERY = {"with_", "order", "limit", "offset"}
_PARTS: dict[type[Any], set[str]] = {
    exp.Select: _QUERY
    | {"expressions", "from_", "joins", "where", "group", "having", "distinct"}
    | {"operation_modifiers", "windows"},
    **dict.fromkeys(
        (exp.Union, exp.Except, exp.Intersect), _QUERY | {"this", "expression", "distinct"}
    ),
    exp.Subquery: _QUERY | {"this", "alias", "joins"},
    exp.With: {"expressions", "recursive"},
    exp.CTE: {"this", "alias"},
    exp.Table: {"this", "db", "alias", "joins", "hints"},
    exp.Join: {"this", "on", "using", "side", "kind", "method"},
    exp.Group: {"expressions", "rollup"},
    exp.Ordered: {"this", "desc", "nulls_first"},
    exp.Distinct: {"expressions"},
    exp.Limit: {"expression"},
    exp.Offset: {"expression"},
}


def _sql(node: Any) -> str:
    """The node in SQLite's SQL. Raises SqlError for what SQLGlot cannot express in it."""
    try:
        return _generate(node, copy=False)
    except UnsupportedError as error:
        raise SqlError(f"This version of MySQL doesn't yet support '{error}'") from None


class Query(NamedTuple):
    """A translated query. Its columns are named c1, c2 ...; if requested, one more, named #,
    numbers the rows."""

    sql: str
    columns: list[Value]


class Queries(Expressions):
    """Translates one statement: `nodes` are those of its tree, `database` is the one in use. Raises
    SqlError if a table does not exist."""

    def __init__(self, catalogue: Catalogue, database: str, nodes: Sequence[Any]) -> None:
        self.database, self._catalogue, self._opened, self._columns = database, catalogue, 0, 0
        nodes = [node for node in nodes if type(node) in _PARTS]
        commons = [node for node in nodes if isinstance(node, exp.CTE)]
        self._common_tables = {node.alias.lower(): node.this for node in commons}
        self._common_names = {
            node.alias.lower(): [column.name for column in node.args["alias"].columns]
            for node in commons
        }
        # MySQL looks up all tables before any other name.
        for node in nodes:
            _check_parts(node)
            known = _is_dual(node) or self._common_table(node) is not None
            if isinstance(node, exp.Table) and not known:
                self._table(node)

    def query(self, node: Any, outer: Scope | None = None, numbered: bool = False) -> Query:
        """Translate a query in the scope `outer`; `numbered` asks for row numbers. Raises SqlError
        if MySQL rejects it."""
        if isinstance(node, exp.Subquery):
            return self._sorted(self.query(node.this, outer, True), node, outer, numbered)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer, numbered)
        return self._select(node, outer, numbered)

    # --- SELECT, clause by clause in MySQL's order

    def _select(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        scope, distinct, limit = Scope(outer), node.args.get("distinct"), _limit(node)
        self._open(node, scope)
        self._select_list(node, scope)
        self._condition(node.args.get("where"), names.WHERE, scope)
        self._join_conditions(scope)
        self._group(node, scope)
        self._condition(node.args.get("having"), names.HAVING, scope)
        order = self._order(node, scope)
        single = self._check(node, scope, [value.node for value, _ in order])
        order += [(group, "") for group in scope.groups if scope.sorts]
        order = order or ([] if numbered else scope.windows)
        keys = [_sql(key(value)) + way for value, way in order if not scope.is_fixed(value.node)]
        keys = [] if single else keys + reading_order(scope)
        for part in (*_QUERY, "distinct", "windows", "operation_modifiers"):
            node.set(part, None)
        output = list(enumerate(scope.output, 1))
        columns = [_alias(value.node, f"c{n}") for n, value in output]
        rollup = node.args.get("group") is not None and scope.rollup
        numbers = [exp.Var(this=_number(keys))] if (numbered or distinct) and not rollup else []
        node.set("expressions", columns + numbers)
        result = [value._replace(node=_column(f"c{n}")) for n, value in output]
        if rollup:
            order = [(value, way) for value, way in order if not scope.is_fixed(value.node)]
            return self._rolled_up(node, scope, order, (limit, numbered, distinct), result)
        if distinct:
            return self._grouped(Query(_sql(node), result), [], limit, numbered, "")
        return Query(f"{_sql(node)}{_order_by(keys)}{limit}", result)

    def _rolled_up(
        self, node: Any, scope: Scope, order: list[Any], how: tuple[str, bool, Any], result: Any
    ) -> Query:
        """WITH ROLLUP: one query for each number of groups, in which the others are NULL. The rows
        are in the order of the groups, the totals of a group behind it, unless ORDER BY is set."""
        limit, numbered, distinct = how
        groups, queries = scope.groups, list[str]()
        for count in range(len(groups), -1, -1):
            level = node.copy()
            extra = [_alias(value.node, f"o{n}") for n, (value, _) in enumerate(order)]
            level.set("expressions", level.expressions + extra)
            absent = {value.node for value in groups[count:]} | {
                key(value) for value in groups[count:]
            }
            for part in [*level.expressions, *filter(None, [level.args.get("having")])]:
                _without(part, absent)
            marks = [
                f"{_sql(key(value)) if n < count else 'NULL'} AS g{n}, {int(n >= count)} AS h{n}"
                for n, value in enumerate(groups)
            ]
            level.set("expressions", level.expressions + [exp.Var(this=mark) for mark in marks])
            keys = [key(value).copy() for value in groups[:count]]
            level.set("group", exp.Group(expressions=keys or [exp.Null()]))
            queries.append(_sql(level))
        keys = [f"o{n}{way}" for n, (_, way) in enumerate(order)]
        keys += [f"{mark}{n}" for n in range(len(groups)) for mark in "hg"]
        columns = ", ".join(value.node.name for value in result)
        shown = f", {_number(keys)}" if numbered or distinct else ""
        sql = f"SELECT {columns}{shown} FROM ({' UNION ALL '.join(queries)})"
        if distinct:
            return self._grouped(Query(sql, result), [], limit, numbered, "")
        return Query(f"{sql}{_order_by(keys)}{limit}", result)

    def _select_list(self, node: Any, scope: Scope) -> None:
        for item in list(node.expressions):
            if item.is_star:
                scope.output += self._star(
                    item if isinstance(item, exp.Column) else exp.Column(this=item), scope
                )
            else:
                value = self.value(item.this if isinstance(item, exp.Alias) else item, scope)
                scope.output.append(value._replace(name=item.alias_or_name or _text(item)))
            if self._columns + len(scope.output) > MAX_COLUMNS:
                raise SqlError("Too many columns")
        self._columns += len(scope.output)

    def _star(self, node: Any, scope: Scope) -> Iterator[Value]:
        merged, sources = {} if node.table else scope.merged, scope.named(node)
        yield from merged.values()
        for source in sources:
            source.used.update(source.columns)
            yield from (column for name, column in source.columns.items() if name not in merged)
        if not sources:
            name = ".".join(part.name for part in node.parts[:-1])
            raise SqlError(f"Unknown table '{name}'" if name else "No tables used")

    def _condition(self, clause: Any, name: str, scope: Scope) -> None:
        scope.clause = name
        if clause is not None:
            self.value(clause.this, scope)

    def _group(self, node: Any, scope: Scope) -> None:
        group, scope.clause = node.args.get("group"), names.GROUP
        if group is not None:
            scope.groups = [self._listed(item, scope) for item in group.expressions]
            keys = [key(value).copy() for value in scope.groups if not scope.is_fixed(value.node)]
            scope.rollup = bool(group.args.get("rollup"))
            node.set("group", exp.Group(expressions=keys or [exp.Null()]))

    def _order(self, node: Any, scope: Scope) -> list[tuple[Value, str]]:
        order, scope.clause = node.args.get("order"), names.ORDER
        items = order.expressions if order is not None else ()
        return [
            (self._listed(item.this, scope), " DESC" if item.args.get("desc") else "")
            for item in items
        ]

    def _listed(self, node: Any, scope: Scope) -> Value:
        """An item of GROUP BY or ORDER BY. A number is a position in the select list; in ORDER BY,
        a name refers to the select list first."""
        if node.is_int and 1 <= int(node.name) <= len(scope.output):
            return scope.output[int(node.name) - 1]
        if node.is_int:
            raise SqlError(f"Unknown column '{node.name}' in '{scope.clause}'")
        bare = scope.clause == names.ORDER and isinstance(node, exp.Column) and not node.table
        return (scope.selected(node.name.lower()) if bare else None) or self.value(node, scope)

    def _check(self, node: Any, scope: Scope, order: Sequence[Any]) -> bool:
        """Check the select list and the order against the groups. Returns whether all rows are one
        group."""
        shown, having = [value.node for value in scope.output], node.args.get("having")
        if scope.groups or scope.aggregated:
            message = names.NOT_GROUPED if scope.groups else names.NOT_AGGREGATED
            known = scope.determined()
            scope.check("SELECT list", shown, known, message)
            scope.check("ORDER BY clause", order if scope.groups else (), known, message)
        elif having is not None:
            # Without groups, HAVING is a condition on rows.
            node.where(having.this, copy=False).set("having", None)
        if node.args.get("distinct") and not scope.groups:
            scope.check("ORDER BY clause", order, set(shown), names.NOT_LISTED)
        return scope.aggregated and not scope.groups

    # --- FROM

    def _open(self, node: Any, scope: Scope) -> None:
        """Translate the tables and subqueries of FROM, in their places, and add them to the
        scope."""
        clause = node.args.get("from_")
        if clause is not None and _is_dual(clause.this):
            node.set("from_", None)
        elif clause is not None:
            self._add_sources(clause.this, scope)
            for join in node.args.get("joins") or ():
                self._join(join, scope, 0)
        scope.visible = scope.sources

    def _add_sources(self, node: Any, scope: Scope) -> None:
        """Add a table, a subquery, or joins, which may be in brackets."""
        first, joins = len(scope.sources), node.args.get("joins") or []
        if _is_bracket(node):
            self._add_sources(node.this, scope)
        else:
            node.set("joins", None)
            source = self._source(node, scope)
            if any(source.name.lower() == other.name.lower() for other in scope.sources):
                raise SqlError(f"Not unique table/alias: '{source.name}'")
            scope.sources.append(source)
            if joins:
                source.place.replace(
                    exp.Subquery(this=exp.Table(this=source.place.copy(), joins=joins))
                )
        for join in joins:
            self._join(join, scope, first)

    def _join(self, join: Any, scope: Scope, first: int) -> None:
        """Add the right side of a join, the left side of which begins at the source `first`."""
        before, place = scope.sources[first:], len(scope.sources)
        self._add_sources(join.this, scope)
        added = scope.sources[place:]
        for source in added if join.side == "LEFT" else ():
            source.after = [*source.after, *before]
        for source in before if join.side == "RIGHT" else ():
            source.after = [*source.after, *added]
        optional = added[0] if join.side == "LEFT" else before[0]
        scope.joins.append((join, scope.sources[first:], optional.alias if join.side else ""))
        names = [identifier.name.lower() for identifier in join.args.get("using") or ()]
        if join.method == "NATURAL":
            right = {name for source in added for name in source.columns}
            names = [name for source in before for name in source.columns if name in right]
            join.set("method", None)
        if join.kind == "STRAIGHT_JOIN":
            join.set("kind", None)
        if names:
            self._merge(join, list(dict.fromkeys(names)), before, added, scope)

    def _merge(
        self,
        join: Any,
        names: Sequence[str],
        before: Sequence[Source],
        added: Sequence[Source],
        scope: Scope,
    ) -> None:
        """Translate USING to the condition that columns of the same name are equal."""
        conditions = []
        for name in names:
            left = [source.columns[name] for source in before if name in source.columns]
            right = [source.columns[name] for source in added if name in source.columns]
            if not left or not right:
                raise SqlError(f"Unknown column '{name}' in 'from clause'")
            one, other = left[0], right[-1]
            scope.merged[name] = other if join.side == "RIGHT" else one
            scope.equate(one.node, other.node)
            conditions.append(" = ".join(map(_sql, comparable(one, other))))
        join.set("using", None)
        join.set("on", exp.Var(this=" AND ".join(conditions)))

    def _join_conditions(self, scope: Scope) -> None:
        """Translate the conditions of ON, which may only use the sources before them."""
        scope.clause = names.ON
        for join, visible, optional in scope.joins:
            scope.visible, scope.optional = visible, optional
            if (condition := join.args.get("on")) is not None and not isinstance(
                condition, exp.Var
            ):
                self.value(condition, scope)
        scope.visible, scope.optional = scope.sources, ""

    def _source(self, node: Any, scope: Scope) -> Source:
        """Translate a table or subquery of FROM, in its place."""
        self._opened += 1
        if self._opened > MAX_SOURCES:
            raise SqlError(f"Too many tables; MySQL can only use {MAX_SOURCES} tables in a join")
        alias, name = f"t{self._opened}", node.alias_or_name
        common = self._common_table(node)
        if isinstance(node, exp.Table) and common is None:
            return self._stored_table(node, alias, name)
        query = self.query(node.this if common is None else common.copy(), scope.outer, True)
        place = node.replace(exp.Var(this=f"({query.sql}) AS {alias}"))
        columns = {
            name.lower(): value._replace(node=_column(value.node.name, alias), name=name)
            for name, value in zip(self._column_names(node, query), query.columns, strict=True)
        }
        if len(columns) < len(query.columns):
            raise SqlError("Duplicate column name in a derived table")
        return Source(alias, name, columns, place)

    def _column_names(self, node: Any, query: Query) -> list[str]:
        """The names of a derived or common table's columns: those listed behind its name, or those
        of its query."""
        common = (
            self._common_names.get(node.name.lower(), []) if isinstance(node, exp.Table) else ()
        )
        listed = (
            common or [column.name for column in node.args["alias"].columns]
            if (common or node.args.get("alias"))
            else []
        )
        if listed and len(listed) != len(query.columns):
            raise SqlError(
                "In definition of view, derived table or common table expression, SELECT list and "
                "column names list have different column counts"
            )
        return listed or [column.name for column in query.columns]

    def _stored_table(self, node: Any, alias: str, name: str) -> Source:
        table = self._table(node)
        place = node.replace(exp.Var(this=f"{table.stored_as} AS {alias}"))
        columns = {
            lower: Value(_stored(column.name, alias), column.type, column.name)
            for lower, column in table.columns.items()
        }
        return Source(alias, name, columns, place, table)

    def _common_table(self, node: Any) -> Any:
        """The query of WITH that a table's name refers to, or None."""
        if isinstance(node, exp.Table) and not node.db:
            return self._common_tables.get(node.name.lower())
        return None

    def _table(self, node: Any) -> Table:
        """The stored table of a name. Raises SqlError if there is none."""
        database = node.db.lower() or self.database
        if database not in self._catalogue:
            raise SqlError(f"Unknown database '{database}'" if database else "No database selected")
        table = self._catalogue[database].get(node.name.lower())
        if table is None:
            raise SqlError(f"Table '{database}.{node.name.lower()}' doesn't exist")
        return table

    # --- set operations; sorting and DISTINCT of whole queries

    def _set_operation(self, node: Any, outer: Scope | None, numbered: bool) -> Query:
        left, right = self.query(node.this, outer, True), self.query(node.expression, outer, True)
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        pairs = list(zip(left.columns, right.columns, strict=True))
        columns = [one._replace(type=common_type((one.type, other.type))) for one, other in pairs]
        first, second = (
            ", ".join(
                f"{_sql(as_text(value)) if to.type == TEXT else value.node.name} AS {to.node.name}"
                for value, to in zip(query.columns, columns, strict=True)
            )
            for query in (left, right)
        )
        sql = (
            f'SELECT {first}, "#" FROM ({left.sql}) UNION ALL '
            f'SELECT {second}, "#" + {_SECOND} FROM ({right.sql})'
        )
        both = f'sum("#" >= {_SECOND})'
        having = {
            "except": f" HAVING NOT {both}",
            "intersect": f' HAVING {both} AND min("#") < {_SECOND}',
        }.get(node.key, "")
        every = isinstance(node, exp.Union) and not node.args.get("distinct")
        return self._sorted(Query(sql, columns), node, outer, numbered, None if every else having)

    def _sorted(
        self,
        query: Query,
        node: Any,
        outer: Scope | None,
        numbered: bool,
        having: str | None = None,
    ) -> Query:
        """Apply the ORDER BY and LIMIT of `node` to a query, and `having` as in `_grouped`."""
        source = Source("", "", {column.name.lower(): column for column in query.columns})
        order = self._order(node, Scope(outer, [source], [source], output=query.columns))
        keys = [_sql(key(value)) + way for value, way in order]
        return self._grouped(query, keys, _limit(node), numbered, having)

    def _grouped(
        self, query: Query, keys: list[str], limit: str, numbered: bool, having: str | None
    ) -> Query:
        """Sort a numbered query by `keys`, then by its row numbers. Unless `having` is None, only
        the first of equal rows is kept, under that condition."""
        group, number = "", '"#"'
        if having is not None:
            columns = ", ".join(_sql(key(column)) for column in query.columns)
            group, number = f" GROUP BY {columns}{having}", 'min("#")'
        keys = [*keys, number]
        shown = [column.node.name for column in query.columns]
        shown += [_number(keys)] if numbered else []
        sql = f"SELECT {', '.join(shown)} FROM ({query.sql}){group}{_order_by(keys)}{limit}"
        return query._replace(sql=sql)


def _check_parts(node: Any) -> None:
    """Raises SqlError for a node with a part that would be lost."""
    parts = _PARTS[type(node)]
    if lost := [part for part, value in node.args.items() if value and part not in parts]:
        raise SqlError(f"This version of MySQL doesn't yet support '{node.key} with {lost[0]}'")


def _is_dual(node: Any) -> bool:
    """Whether it is DUAL, which is no table. It is a reserved word."""
    return isinstance(node, exp.Table) and node.name.upper() == "DUAL" and not node.this.quoted


def _is_bracket(node: Any) -> bool:
    """Whether a part of FROM is a table or join in brackets."""
    return (
        isinstance(node, exp.Subquery)
        and not node.alias
        and isinstance(node.this, exp.Table | exp.Subquery)
    )


def _without(node: Any, absent: set[Any]) -> None:
    """Replace the `absent` expressions outside aggregates by NULL, and GROUPING by its value."""
    if isinstance(node, exp.AggFunc):
        return
    for part in list(node.iter_expressions()):
        if isinstance(part, exp.Anonymous) and part.name == "my_grouping":
            part.replace(exp.Literal.number(int(part.expressions[0] in absent)))
        elif part in absent:
            part.replace(exp.Null())
        else:
            _without(part, absent)


@lru_cache(maxsize=4096)
def _stored(name: str, alias: str) -> Any:
    """A column of a stored table, marked as such. It is shared: copy it into a tree."""
    column = _column(name, alias)
    column.this.set("quoted", True)
    column.set("stored", True)
    return column


def _column(name: str, alias: str = "") -> Any:
    table = {"table": exp.Identifier(this=alias)} if alias else {}
    return exp.Column(this=exp.Identifier(this=name), **table)


def _alias(node: Any, name: str) -> Any:
    return exp.Alias(this=node.copy(), alias=exp.Identifier(this=name))


def _number(keys: Sequence[str]) -> str:
    return f'row_number() OVER ({_order_by(keys)}) AS "#"'


def _order_by(keys: Sequence[str]) -> str:
    return f" ORDER BY {', '.join(keys)}" if keys else ""


def _limit(node: Any) -> str:
    counts = {
        part: node.args[part].expression
        for part in ("limit", "offset")
        if node.args.get(part) is not None
    }
    return "".join(
        f" {part.upper()} {min(int(count.name), 2**62)}"
        for part, count in counts.items()
        if count.is_int
    )
