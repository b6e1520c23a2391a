"""The order in which MySQL reads rows if nothing sorts them: its nested loops and its choice of
index, in outline.

InterCode's reward compares the order of rows. A wrong guess changes the order, not the rows.
"""

from __future__ import annotations

from rro.intercode_sql.embedded.names import Scope, Source


def reading_order(scope: Scope) -> list[str]:
    """Sort keys that put rows into the order in which they are read, and groups into the order of
    their first rows."""
    order, number, keys = list[Source](), "0", []
    while len(order) < len(scope.sources):
        rest = [source for source in scope.sources if source not in order]
        order.append(min(rest, key=lambda source: _rank(source, order, scope)))
        keys.append(f'{order[-1].alias}."{_index(order[-1], scope)}"')
        number = f"({number} * 100000 + coalesce({keys[-1]}, 0))"
    return [f"min({number})"] if scope.groups else keys


def _rank(source: Source, before: list[Source], scope: Scope) -> tuple[bool, bool, bool, float]:
    """Sort key of the next source to read: those whose rows an equality finds by an index first,
    then those for which it does so without an index, then by estimated number of rows."""
    known, table = {other.alias for other in before}, source.table
    equal = [(one, to.column) for one, to in scope.equal if to.table == source.alias]
    joined = {name for one, name in equal if one is not None and one.table in known}
    indexed = table is not None and any(names[0] in joined for names in table.indexes.values())
    rows = (table.rows if table else 100) * 0.1 ** sum(one is None for one, _ in equal)
    return not set(source.after) <= set(before), not indexed, not joined, rows


def _index(source: Source, scope: Scope) -> str:
    """The stored column that numbers a source's rows in the order in which they are read: by the
    index that groups them, by one with all columns that the statement uses, or by the primary
    key."""
    indexes = source.table.indexes if source.table else {}
    groups = {group.column for group in scope.groups} if len(scope.sources) == 1 else set()
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
