"""What a name in a statement means: the sources of a query block, its blocks around it, and MySQL's errors for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rro.envs.intercode_sql.embedded.schema import Kind, Table, Type
from rro.envs.intercode_sql.embedded.syntax import TOO_DEEP, SqlError

MAX_LENGTH = 200_000  # of the text of a translated expression or query
SELECT_LIST, WHERE, ON, GROUP, HAVING, ORDER = (
    "field list", "where clause", "on clause", "group statement", "having clause", "order clause",
)  # fmt: skip
IN_SUBQUERY = "IN/ALL/ANY subquery"


@dataclass(frozen=True, slots=True)
class Expr:
    """A translated expression. `key` is what it is compared, grouped and sorted by; `parts` are its operands, `column` the
    source and the column (in lower case) where it is one, `literal` a constant's text. `aggregate`: it is a call of an
    aggregate function; `aggregated`: there is one in it."""

    sql: str
    type: Type
    key: str = ""
    parts: tuple[Expr, ...] = ()
    column: tuple[Source, str] | None = None
    literal: str | None = None
    aggregate: bool = False
    aggregated: bool = False
    constant: bool = False

    @property
    def by(self) -> str:
        if self.key:
            return self.key
        return f"ci({self.sql})" if self.type.kind is Kind.TEXT else self.sql


@dataclass
class Query:
    """A translated query: its columns are called c1, c2 ...; with row numbers asked for, one more is called #. `unique` are
    sets of names that identify a row."""

    sql: str
    columns: list[tuple[str, Expr]]  # name, expression
    one_row: bool = False
    unique: list[list[str]] = field(default_factory=list)


def made(sql: str, kind: Type, *parts: Expr, aggregate: bool = False) -> Expr:
    """An expression of `parts`. Raises SqlError for one that has grown too long: some forms write an operand twice."""
    if len(sql) > MAX_LENGTH:
        raise SqlError(TOO_DEEP)
    aggregated = aggregate or any(part.aggregated for part in parts)
    constant = bool(parts) and not aggregate and all(part.constant for part in parts)
    return Expr(sql, kind, "", parts, None, None, aggregate, aggregated, constant)


@dataclass(eq=False)
class Source:
    """A table or a subquery in FROM. `columns` are its columns by name in lower case, as (name, expression); `order` is the
    number of a row in the order in which MySQL reads it, `rows` about how many there are. `unique` sets of columns identify a row.
    `optional`: on the inner side of an outer join."""

    alias: str
    database: str
    name: str
    columns: Mapping[str, tuple[str, Expr]]
    order: str
    rows: int
    unique: Sequence[Sequence[str]] = ()
    table: Table | None = None
    optional: bool = False
    used: set[str] = field(default_factory=set)  # columns, in lower case

    def full_name(self, column: str) -> str:
        """How MySQL's messages name a column of it."""
        parts = (self.database, self.name, self.columns[column][0])
        return ".".join(part for part in parts if part)


@dataclass(eq=False)
class Block:
    """One SELECT while it is translated. `place` is the clause at hand, `visible` what its names may come from (ON sees only
    the tables that it joins), `shared` the columns that USING or NATURAL made one of."""

    outer: Block | None = None
    sources: list[Source] = field(default_factory=list)
    visible: list[Source] | None = None
    shared: dict[str, Expr] = field(default_factory=dict)
    place: str = SELECT_LIST
    output: list[tuple[str, Expr]] = field(default_factory=list)  # name, expression
    later: Sequence[str] = ()  # names of the select list, for references too early
    groups: list[Expr] = field(default_factory=list)
    inside_aggregate: bool = False
    aggregates: bool = False
    sorts_groups: bool = False  # an aggregate that MySQL sorts for: DISTINCT, GROUP_CONCAT
    windows: list[str] = field(default_factory=list)

    def column(self, name: str, table: str = "", database: str = "") -> Expr:
        """The column that a name means here, in this block or one around it. Raises SqlError as MySQL would."""
        written = ".".join(part for part in (database, table, name) if part)
        block: Block | None = self
        while block is not None:
            found = block.own(name, table, database, self.place)
            if found is not None:
                return found
            if block is not self and not table:
                found = block.selected(name)
                if found is not None:
                    return found
                if block.place == SELECT_LIST and name.lower() in block.later:
                    raise SqlError(f"Reference '{name}' not supported (forward reference in item list)")
            block = block.outer
        raise SqlError(f"Unknown column '{written}' in '{self.place}'")

    def own(self, name: str, table: str, database: str, place: str) -> Expr | None:
        """A column of this block's own sources."""
        lowered = name.lower()
        if not table and lowered in self.shared:
            return self.shared[lowered]
        found = [s.columns[lowered][1] for s in self.named(table, database) if lowered in s.columns]
        if len(found) > 1:
            written = f"{table}.{name}" if table else name
            raise SqlError(f"Column '{written}' in {place} is ambiguous")
        for expr in found:
            expr.column[0].used.add(lowered)  # type: ignore[index]
        return found[0] if found else None

    def named(self, table: str, database: str = "") -> Iterator[Source]:
        """The visible sources of that name, all for none."""
        for source in self.sources if self.visible is None else self.visible:
            if table and source.name.lower() != table.lower():
                continue
            if not database or source.database == database.lower():
                yield source

    def selected(self, name: str, table: str = "") -> Expr | None:
        """The item of the select list with that name."""
        for known, expr in self.output:
            if known.lower() == name.lower() and _is_of(expr, table):
                return expr
        return None

    def grouped(self, name: str, table: str = "") -> Expr | None:
        """The expression of GROUP BY that is the column of that name."""
        for expr in self.groups:
            if expr.column and expr.column[1] == name.lower() and _is_of(expr, table):
                return expr
        return None


def _is_of(expr: Expr, table: str) -> bool:
    return not table or (expr.column is not None and expr.column[0].name.lower() == table.lower())
