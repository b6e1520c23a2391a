"""FROM: the sources of a query block, how they are joined, and what the conditions say of their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from rro.envs.intercode_sql.embedded.grouping import Equality
from rro.envs.intercode_sql.embedded.names import ON, Block, Expr, Source
from rro.envs.intercode_sql.embedded.planner import Conditions
from rro.envs.intercode_sql.embedded.schema import Kind, Type
from rro.envs.intercode_sql.embedded.syntax import Node, SqlError
from rro.envs.intercode_sql.embedded.values import comparable, truth

# the part of a table's rows that MySQL expects a condition to leave
_SHARES: dict[type[Node], float] = {
    exp.GT: 1 / 3, exp.GTE: 1 / 3, exp.LT: 1 / 3, exp.LTE: 1 / 3, exp.Between: 1 / 9, exp.Like: 1 / 9, exp.NEQ: 0.9,
    exp.In: 0.2, exp.Is: 0.1,
}  # fmt: skip
MOST_TABLES = 61
_CONSTANT = Expr("", Type(Kind.NULL), constant=True)


@dataclass
class Joined:
    """A source, or two sides and what joins them: ON, not yet resolved, and the pairs of columns of USING."""

    source: Source | None = None
    text: str = ""
    left: Joined | None = None
    right: Joined | None = None
    outer: bool = False
    on: Any = None
    using: list[tuple[Expr, Expr]] = field(default_factory=list)
    condition: str = ""

    def sources(self) -> list[Source]:
        if self.left is None or self.right is None:
            return [self.source] if self.source else []
        return self.left.sources() + self.right.sources()

    def sql(self) -> str:
        if self.left is None or self.right is None:
            return self.text
        right = f"({self.right.sql()})" if self.right.left else self.right.sql()
        on = f" ON {self.condition}" if self.condition or self.outer else ""
        return f"{self.left.sql()} {'LEFT JOIN' if self.outer else 'JOIN'} {right}{on}"

    def optional(self) -> Iterator[tuple[Source, set[Source]]]:
        """The inner tables of outer joins, with the tables that they are joined to."""
        if self.left is None or self.right is None:
            return
        yield from self.left.optional()
        yield from self.right.optional()
        if self.outer:
            yield from ((source, set(self.left.sources())) for source in self.right.sources())


class Joins:
    """The FROM clause of one block. `open_source` makes a source and its text of a table or subquery."""

    def __init__(self, block: Block, open_source: Callable[[Any, Block | None], tuple[Source, str]]) -> None:
        self.trees: list[Joined] = []
        self.equalities: list[Equality] = []
        self.conditions = Conditions()
        self._block, self._open = block, open_source

    def open(self, select: Any) -> None:
        """Open all sources. Raises SqlError for names that are used twice."""
        clause = select.args.get("from_")
        if clause is None or (isinstance(clause.this, exp.Table) and clause.this.name.lower() == "dual"):
            return
        tree = self._tree(clause.this)
        for join in select.args.get("joins") or ():
            if any(join.args.get(part) for part in ("on", "using", "side", "kind", "method")):
                tree = self._joined(tree, join)
            else:  # a comma binds less than JOIN
                self.trees.append(tree)
                tree = self._tree(join.this)
        self.trees.append(tree)

    def resolve(self, translate: Callable[[Any, Block], Expr]) -> None:
        """Resolve the conditions of all joins."""
        for tree in self.trees:
            self._resolve(tree, translate)

    def sql(self) -> str:
        return f" FROM {' JOIN '.join(tree.sql() for tree in self.trees)}" if self.trees else ""

    def after(self) -> dict[Source, set[Source]]:
        """What the inner tables of outer joins are read after."""
        return {source: known for tree in self.trees for source, known in tree.optional()}

    def note(self, condition: Any, optional: Source | None, translate: Callable[[Any, Block], Expr]) -> None:
        """Remember what the parts of a resolved condition say of single columns."""
        for part in _conjuncts(condition):
            sides = [part.this, part.expression] if isinstance(part, exp.Binary) else [part.this]
            columns = [translate(side, self._block) for side in sides if isinstance(side, exp.Column)]
            plain = all(isinstance(side, exp.Column | exp.Literal) for side in sides)
            if (
                isinstance(part, exp.EQ)
                and columns
                and (plain or any(isinstance(side, exp.Subquery) for side in sides))
            ):
                pair = columns[0], columns[1] if len(columns) > 1 else _CONSTANT
                self.conditions.equate(*pair)
                if plain:
                    self.equalities.append((*pair, optional))
            elif columns and (column := columns[0].column):
                self.conditions.keep(column[0], _SHARES.get(type(part), 1.0))
                if isinstance(part, exp.GT | exp.GTE | exp.LT | exp.LTE | exp.Between | exp.In | exp.NEQ):
                    self.conditions.ranges.add(column)

    def _tree(self, node: Any) -> Joined:
        if isinstance(node, exp.Paren) or (isinstance(node, exp.Subquery) and not isinstance(node.this, exp.Query)):
            tree = self._tree(node.this)
        else:
            source, text = self._open(node, self._block.outer)
            name = source.database, source.name.lower()
            if any((known.database, known.name.lower()) == name for known in self._block.sources):
                raise SqlError(f"Not unique table/alias: '{source.name}'")
            self._block.sources.append(source)
            if len(self._block.sources) > MOST_TABLES:
                raise SqlError(f"Too many tables; MySQL can only use {MOST_TABLES} tables in a join")
            tree = Joined(source, text)
        for join in node.args.get("joins") or ():
            tree = self._joined(tree, join)
        return tree

    def _joined(self, left: Joined, join: Any) -> Joined:
        side = (join.side or "").upper()
        if side == "FULL":  # no such join in MySQL: the word is an alias of the table before
            left.sources()[-1].name = "FULL"
        right = self._tree(join.this)
        names = [identifier.name for identifier in join.args.get("using") or ()]
        if join.method == "NATURAL":
            mine = {name for source in left.sources() for name in source.columns}
            names = [name for source in right.sources() for name in source.columns if name in mine]
        using = [(_column_of(left, name), _column_of(right, name)) for name in names]
        for name, (one, other) in zip(names, using, strict=True):
            self._block.shared[name.lower()] = other if side == "RIGHT" else one
        outer = side in ("LEFT", "RIGHT")
        inner, other_side = (left, right) if side == "RIGHT" else (right, left)
        for source in inner.sources() if outer else ():
            source.optional = True
        return Joined(None, "", other_side, inner, outer, join.args.get("on"), using)

    def _resolve(self, tree: Joined, translate: Callable[[Any, Block], Expr]) -> None:
        """The conditions of the joins of a tree, the last one first, as MySQL resolves them."""
        if tree.left is None or tree.right is None:
            return
        self._block.visible, self._block.place = tree.sources(), ON
        optional = tree.right.sources()[0] if tree.outer else None
        conditions = []
        for one, other in tree.using:
            conditions.append(" = ".join(comparable(one, other)))
            self.equalities.append((one, other, optional))
            self.conditions.equate(one, other)
        if tree.on is not None:
            conditions.append(truth(translate(tree.on, self._block)))
            self.note(tree.on, optional, translate)
        tree.condition = " AND ".join(conditions) or ("1" if tree.outer else "")
        self._block.visible = None
        self._resolve(tree.right, translate)
        self._resolve(tree.left, translate)


def _column_of(tree: Joined, name: str) -> Expr:
    return Block(None, visible=tree.sources(), place="from clause").column(name)


def _conjuncts(node: Any) -> Iterator[Any]:
    """The conditions that AND joins."""
    node = node.unnest() if isinstance(node, exp.Paren) else node
    if not isinstance(node, exp.And):
        yield node
        return
    for part in node.flatten():
        yield from _conjuncts(part)
