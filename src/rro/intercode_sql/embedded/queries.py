"""Translates SELECTs, subqueries and set operations to SQLite's SQL, with the rows in MySQL's
order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rro.intercode_sql.embedded import names
from rro.intercode_sql.embedded.names import Scope, Source
from rro.intercode_sql.embedded.order import reading_order
from rro.intercode_sql.embedded.sources import Sources
from rro.intercode_sql.embedded.store import TEXT, common_type
from rro.intercode_sql.embedded.syntax import Node
from rro.intercode_sql.embedded.values import Query, Value, as_text, column, key, unsupported
from rro.intercode_sql.engine import SqlError

# What stands around the SELECTs of a query.
_AROUND = {"with", "order", "limit", "locking"}
# Columns of all SELECTs of one statement.
MAX_COLUMNS = 4096
# Added to the row numbers of the second query of a set operation.
_SECOND = 1 << 40


class Queries(Sources):
    """Translates one statement. Raises SqlError if a table does not exist."""

    def query(self, node: Node, outer: Scope | None = None, source: bool = False) -> Query:
        """Translate a query in the scope `outer`; a `source` of another one has row numbers. Raises
        SqlError if MySQL rejects it."""
        while node.kind == "query_parens" and len(node.parts) == 3:
            node = node.parts[1]
        known, body = self._commons, node
        if node.kind in ("query", "query_statement", "query_parens"):
            if common := node.part("with"):
                self.add_common_tables(common)
            body = next(part for part in node.nodes() if part.kind not in _AROUND)
        order, limit = node.part("order"), self._limit(node.part("limit"))
        if body.kind == "select":
            query = self._select(body, outer, source, order, limit)
        elif body.kind == "set_operation":
            query = self._set_operation(body, outer, source, order, limit)
        elif body.kind in ("query_parens", "query"):
            inner = self.query(body, outer, True)
            query = self._sorted(inner, order, limit, outer, source)
        else:
            raise unsupported(self.statement.source(body))
        self._commons = known
        return query

    def _select(
        self, node: Node, outer: Scope | None, source: bool, order: Node | None, limit: str
    ) -> Query:
        scope, distinct = Scope(outer), not {"DISTINCT", "DISTINCTROW"}.isdisjoint(self.words(node))
        if distinct and "ALL" in self.words(node):
            raise SqlError("Incorrect usage of ALL and DISTINCT")
        clauses = {part.kind: part for part in node.nodes()}
        for window in clauses["windows"].nodes() if "windows" in clauses else ():
            name = self.statement.name(window.first).lower()
            scope.named_windows[name] = window.parts[-1]
        pieces = self.open(clauses.get("from"), scope)
        scope.output = self._select_list(clauses["items"], scope)
        where = self._condition(clauses.get("where"), names.WHERE, scope)
        self.join_conditions(scope)
        rollup = self._group(clauses.get("group"), scope)
        having = self._condition(clauses.get("having"), names.HAVING, scope)
        sorts = self._order(order, scope)
        single = self._check(scope, [value for value, _ in sorts], distinct)
        sorts += [(group, "") for group in scope.groups if scope.sorts]
        sorts = sorts or ([] if source else scope.windows)
        tables = "".join([piece if isinstance(piece, str) else piece.sql for piece in pieces])
        condition = f" WHERE {where.sql}" if where else ""
        if having and not scope.groups and not scope.aggregated:
            # Without groups, HAVING is a condition on rows.
            condition = f" WHERE {f'{where.sql} AND ' if where else ''}{having.sql}"
            having = None
        rest = tables + condition
        columns = [
            column("", f"c{n}", value, bool(value.stored_key and value.column) and not rollup)
            for n, value in enumerate(scope.output, 1)
        ]
        if rollup:
            keys = [f"o{n}{way}" for n, (_, way) in enumerate(sorts)]
            keys += [f"{mark}{n}" for n in range(len(scope.groups)) for mark in "hg"]
            rest = f" FROM ({' UNION ALL '.join(self._levels(clauses, order, scope, rest))})"
            shown = [one.sql for one in columns]
        else:
            rest += _group_by(scope, scope.groups) + (f" HAVING {having.sql}" if having else "")
            keys = [f"{key(value)}{way}" for value, way in sorts if not scope.is_fixed(value)]
            keys = [] if single else keys + reading_order(scope)
            shown = [
                f"{value.sql} AS {one.sql}"
                for value, one in zip(scope.output, columns, strict=True)
            ]
            if source or distinct or outer is not None:
                pairs = zip(scope.output, columns, strict=True)
                shown += [
                    f"{value.stored_key} AS {one.stored_key}"
                    for value, one in pairs
                    if one.stored_key
                ]
        shown += [_number(keys)] if source or distinct else []
        query = Query(f"SELECT {', '.join(shown)}{rest}", columns)
        if distinct:
            return self._grouped(query, [], limit, source, "")
        return query._replace(sql=f"{query.sql}{_order_by(keys)}{limit}")

    def _levels(
        self, clauses: dict[str, Node], order: Node | None, scope: Scope, rest: str
    ) -> Iterator[str]:
        """WITH ROLLUP: one query for each number of groups, in which the others are NULL. The rows
        are in the order of the groups, the totals of a group behind it, unless ORDER BY is set."""
        groups = scope.groups
        for count in range(len(groups), -1, -1):
            scope.absent, scope.clause = {value.sql for value in groups[count:]}, names.SELECT_LIST
            scope.output = self._select_list(clauses["items"], scope)
            having = self._condition(clauses.get("having"), names.HAVING, scope)
            sorts = self._order(order, scope)
            shown = [f"{value.sql} AS c{n}" for n, value in enumerate(scope.output, 1)]
            shown += [f"{key(value)} AS o{n}" for n, (value, _) in enumerate(sorts)]
            shown += [
                f"{key(value) if n < count else 'NULL'} AS g{n}, {int(n >= count)} AS h{n}"
                for n, value in enumerate(groups)
            ]
            level = f"SELECT {', '.join(shown)}{rest}{_group_by(scope, groups[:count])}"
            yield level + (f" HAVING {having.sql}" if having else "")

    def _select_list(self, node: Node, scope: Scope) -> list[Value]:
        output = list[Value]()
        for item in node.parts:
            if item.__class__ is int:
                if self.statement.words[item] == "*":
                    output += self._star([], scope)
            elif item.kind == "star":
                output += self._star(list(map(self.statement.name, item.parts[:-1:2])), scope)
            else:
                named = item.parts[0] if item.kind == "item" else item
                output.append(self.value(named, scope)._replace(name=self._name(item)))
            if self._columns + len(output) > MAX_COLUMNS:
                raise SqlError("Too many columns")
        self._columns += len(output)
        return output

    def _name(self, item: Node) -> str:
        """The name of an item of the select list."""
        if item.kind in ("item", "name"):
            return self.statement.name(item.parts[-1])
        return self.statement.source(item)

    def _star(self, path: Sequence[str], scope: Scope) -> Iterator[Value]:
        merged, sources = {} if path else scope.merged, scope.named(path)
        yield from merged.values()
        for source in sources:
            source.used.update(source.columns)
            yield from (value for name, value in source.columns.items() if name not in merged)
        if not sources:
            raise SqlError(f"Unknown table '{'.'.join(path)}'" if path else "No tables used")

    def _condition(self, clause: Node | None, name: str, scope: Scope) -> Value | None:
        scope.clause = name
        if clause is None:
            return None
        condition = self.value(clause.parts[1], scope)
        if name == names.WHERE:
            scope.hold(condition)
        return condition

    def _group(self, clause: Node | None, scope: Scope) -> bool:
        """Set the groups of a scope. Returns whether they are WITH ROLLUP."""
        scope.clause = names.GROUP
        if clause is None:
            return False
        scope.groups = [self._listed_item(item, scope) for item in clause.nodes()]
        return "ROLLUP" in self.words(clause)

    def _order(self, order: Node | None, scope: Scope) -> list[tuple[Value, str]]:
        scope.clause = names.ORDER
        return [(self._listed_item(item, scope), way) for item, way in self.order_items(order)]

    def _listed_item(self, node: Node, scope: Scope) -> Value:
        """An item of GROUP BY or ORDER BY. A number is a position in the select list; in ORDER BY,
        a name refers to the select list first."""
        place = self.place(node)
        if place is not None:
            if 1 <= place <= len(scope.output):
                return scope.output[place - 1]
            raise SqlError(f"Unknown column '{place}' in '{scope.clause}'")
        bare = scope.clause == names.ORDER and node.kind == "name" and len(node.parts) == 1
        named = scope.selected(self.statement.name(node.first).lower()) if bare else None
        return named or self.value(node, scope)

    def _check(self, scope: Scope, order: Sequence[Value], distinct: bool) -> bool:
        """Check the select list and the order against the groups. Returns whether all rows are one
        group."""
        if scope.groups or scope.aggregated:
            message = names.NOT_GROUPED if scope.groups else names.NOT_AGGREGATED
            known = scope.determined()
            scope.check("SELECT list", scope.output, known, message)
            scope.check("ORDER BY clause", order if scope.groups else (), known, message)
        if distinct and not scope.groups:
            shown = {value.sql for value in scope.output}
            scope.check("ORDER BY clause", order, shown, names.NOT_LISTED)
        return scope.aggregated and not scope.groups

    def _set_operation(
        self, node: Node, outer: Scope | None, source: bool, order: Node | None, limit: str
    ) -> Query:
        words = self.statement.words[node.parts[0].end : node.parts[-1].first]
        left, right = (self.query(part, outer, True) for part in (node.parts[0], node.parts[-1]))
        if len(left.columns) != len(right.columns):
            raise SqlError("The used SELECT statements have a different number of columns")
        pairs = list(zip(left.columns, right.columns, strict=True))
        columns = [
            column(
                "",
                one.column,
                one._replace(type=common_type((one.type, other.type))),
                bool(one.stored_key and other.stored_key),
            )
            for one, other in pairs
        ]
        keys = "".join([f"{to.stored_key}, " for to in columns if to.stored_key])
        first, second = (
            "".join(
                f"{as_text(value) if to.type == TEXT else value.sql} AS {to.sql}, "
                for value, to in zip(query.columns, columns, strict=True)
            )
            + keys
            for query in (left, right)
        )
        sql = (
            f'SELECT {first}"#" FROM ({left.sql}) UNION ALL '
            f'SELECT {second}"#" + {_SECOND} FROM ({right.sql})'
        )
        both = f'sum("#" >= {_SECOND})'
        having: str | None = {
            "EXCEPT": f" HAVING NOT {both}",
            "INTERSECT": f' HAVING {both} AND min("#") < {_SECOND}',
        }.get(words[0], "")
        if "ALL" in words:
            if words[0] != "UNION":
                raise unsupported(" ".join(words))
            having = None
        return self._sorted(Query(sql, columns), order, limit, outer, source, having)

    def _sorted(
        self,
        query: Query,
        order: Node | None,
        limit: str,
        outer: Scope | None,
        source: bool,
        having: str | None = None,
    ) -> Query:
        """Apply ORDER BY and LIMIT to a query, and `having` as in `_grouped`."""
        rows = Source("", "", {one.name.lower(): one for one in query.columns})
        sorts = self._order(order, Scope(outer, [rows], [rows], output=query.columns))
        keys = [f"{key(value)}{way}" for value, way in sorts]
        return self._grouped(query, keys, limit, source, having)

    def _grouped(
        self, query: Query, keys: list[str], limit: str, source: bool, having: str | None
    ) -> Query:
        """Sort a numbered query by `keys`, then by its row numbers. Unless `having` is None, only
        the first of equal rows is kept, under that condition."""
        group, number = "", '"#"'
        if having is not None:
            group = f" GROUP BY {', '.join(map(key, query.columns))}{having}"
            number = 'min("#")'
        keys = [*keys, number]
        shown = [one.sql for one in query.columns]
        shown += [one.stored_key for one in query.columns if one.stored_key]
        shown += [_number(keys)] if source else []
        sql = f"SELECT {', '.join(shown)} FROM ({query.sql}){group}{_order_by(keys)}{limit}"
        return query._replace(sql=sql)

    def _limit(self, node: Node | None) -> str:
        if node is None:
            return ""
        counts = [
            self.statement.number(part)
            for part in node.parts
            if self.statement.words[part] == "INTEGER"
        ]
        if "," in self.words(node):
            counts.reverse()
        return "".join(f" {part} {n}" for part, n in zip(("LIMIT", "OFFSET"), counts, strict=False))


def _group_by(scope: Scope, groups: Sequence[Value]) -> str:
    keys = [key(value) for value in groups if not scope.is_fixed(value)]
    return f" GROUP BY {', '.join(keys) or 'NULL'}" if scope.groups else ""


def _number(keys: Sequence[str]) -> str:
    return f'row_number() OVER ({_order_by(keys)}) AS "#"'


def _order_by(keys: Sequence[str]) -> str:
    return f" ORDER BY {', '.join(keys)}" if keys else ""
