"""The order in which MySQL reads rows, where nothing sorts them: its nested loops and its choice of index, in outline.

InterCode's reward counts that order. A wrong guess gives the same rows.
"""

from __future__ import annotations

from rro.envs.intercode_sql.embedded.catalogue import Table
from rro.envs.intercode_sql.embedded.names import Scope, Source


def reading_order(scope: Scope) -> list[str]:
    """Sort keys that bring rows into the order of reading, and groups into that of their first rows."""
    sources = _nested(scope)
    keys = [f'{source.alias}."{_index(source, scope if n == 0 else None)}"' for n, source in enumerate(sources)]
    if not scope.groups or not keys:
        return keys
    number = "0"
    for key in keys:
        number = f"({number} * 100000 + coalesce({key}, 0))"
    return [f"min({number})"]


def _nested(scope: Scope) -> list[Source]:
    """The smallest table first, then those that an equality finds by an index, then those that it finds otherwise."""
    order: list[Source] = []
    left = list(scope.sources)

    def rank(source: Source) -> tuple[bool, bool, bool, float]:
        known = {other.alias for other in order}
        pairs = [(one, to.name.lower()) for one, to in scope.equal if to.table == source.alias]
        fixed = {name for one, name in pairs if one is None}
        found = {name for one, name in pairs if one is not None and one.table in known}
        indexed = source.table is not None and any(index.columns[0] in found for index in source.table.indexes)
        rows = 1.0 if any(fixed.issuperset(names) for names in source.unique) else source.rows * 0.1 ** len(fixed)
        return not set(source.after) <= set(order), not indexed, not found, rows

    while left:
        order.append(min(left, key=rank))
        left.remove(order[-1])
    return order


def _index(source: Source, scope: Scope | None) -> str:
    """The stored column that numbers a source's rows as they are read: by the index that groups them, if the source is read
    first; by one that has all columns that the statement uses; or by the primary key."""
    if source.table is None:
        return "#"
    groups = {group.node.name.lower() for group in scope.groups if group.node.args.get("table")} if scope else set()
    for index in source.table.indexes:
        if groups and groups == set(index.columns[: len(groups)]):
            return index.order
    own = source.table.primary
    return next((i.order for i in source.table.indexes if i.order != "#" and source.used <= {*i.columns, *own}), "#")
