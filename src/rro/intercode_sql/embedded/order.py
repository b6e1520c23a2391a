"""The order in which MySQL reads rows, where nothing sorts them: its nested loops and its choice of
index, in outline.

InterCode's reward counts that order. A wrong guess gives the same rows.
"""

from __future__ import annotations

from rro.intercode_sql.embedded.names import Scope, Source


def reading_order(scope: Scope) -> list[str]:
    """Sort keys that bring rows into the order of reading, and groups into that of their first
    rows."""
    order, number, keys = list[Source](), "0", []
    while len(order) < len(scope.sources):
        left = [source for source in scope.sources if source not in order]
        order.append(min(left, key=lambda source: _rank(source, order, scope)))
        keys.append(f'{order[-1].alias}."{_index(order[-1], scope)}"')
        number = f"({number} * 100000 + coalesce({keys[-1]}, 0))"
    return [f"min({number})"] if scope.groups else keys


def _rank(source: Source, before: list[Source], scope: Scope) -> tuple[bool, bool, bool, float]:
    """The smallest table first; then those in which an equality finds rows by an index, then those
    in which it does so without."""
    known, table = {other.alias for other in before}, source.table
    equal = [(one, to.name.lower()) for one, to in scope.equal if to.table == source.alias]
    found = {name for one, name in equal if one is not None and one.table in known}
    indexed = table is not None and any(names[0] in found for names in table.indexes.values())
    rows = (table.rows if table else 100) * 0.1 ** sum(one is None for one, _ in equal)
    return not set(source.after) <= set(before), not indexed, not found, rows


def _index(source: Source, scope: Scope) -> str:
    """The stored column that numbers a source's rows as they are read: by the index that groups
    them, by one that has all columns that the statement uses, or by the primary key."""
    indexes = source.table.indexes if source.table else {}
    groups = (
        {group.node.name.lower() for group in scope.groups} if len(scope.sources) == 1 else set()
    )
    for order, names in indexes.items():
        if groups and groups == set(names[: len(groups)]):
            return order
    own = indexes.get("#", ())
    return next(
        (
            order
            for order, names in indexes.items()
            if order != "#" and source.used <= {*names, *own}
        ),
        "#",
    )
