"""One table in three forms: lines for a terminal of any width, Markdown, and CSV.

Knows nothing of runs. A terminal's lines are never longer than its width, and no cell is cut: a
table that does not fit is split by columns, and where that is not enough its rows are stacked."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from rro.errors import printable

# An interval is a mapping with "mean", "low" and "high", as results.json has it.
Cell = str | int | float | Mapping[str, Any] | None
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """`name` is the column's name in CSV; elsewhere its underscores are spaces. Columns of kind
    "key" say what a row is about and stand in every part of a table that is split; a "cost" adds up
    over the rows, and stands in each; an "interval" is three columns in CSV."""

    name: str
    kind: Literal["key", "number", "cost", "interval"] = "number"

    @property
    def header(self) -> str:
        """The name for reading."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Table:
    """`name` is the stem of its files, `title` its heading on the terminal. A cell of None is
    unknown, and left blank."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def shown(cell: Cell) -> str:
    """A cell for reading: "0.512 [0.470, 0.553]", or the mean alone where there is no interval;
    numbers to three digits, or to the unit where they are larger."""
    if isinstance(cell, Mapping):
        if cell["low"] is None or cell["high"] is None:
            return f"{cell['mean']:.3f}"
        return f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:#.3g}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return "" if cell is None else " ".join(printable(cell).split())


def markdown(table: Table) -> str:
    """A Markdown table, every cell escaped."""
    header = [column.header for column in table.columns]
    rows = [[shown(cell) for cell in row] for row in table.rows]
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(_escaped, line)) + " |\n" for line in lines)


def comma_separated(table: Table) -> str:
    """CSV in full precision; an interval is `name`, `name_low` and `name_high`."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(name for column in table.columns for name in _csv_names(column))
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        writer.writerow(value for column, cell in cells for value in _csv_values(column, cell))
    return file.getvalue()


def terminal(table: Table, width: int) -> str:
    """Lines of at most `width` columns. What is the same in every row stands once, below the
    title, but for costs."""
    constant, parts = _parts(table)
    caption = ", ".join(f"{part.header} {part.cells[0]}" for part in constant)
    heading = [line for text in (table.title, caption) for line in _wrapped(text, width)]
    keys = [part for part in parts if part.is_key]
    numbers = [part for part in parts if not part.is_key]
    if any(_width(least) > width for least in [[*keys, part] for part in numbers] or [keys]):
        body = [_stacked(parts, width)]
    else:
        blocks = _blocks(numbers, width - _width(keys))
        body = [_grid([*keys, *block]) for block in blocks if parts]
    return "\n".join([*heading, *(line for lines in body for line in ["", *lines])])


@dataclass(frozen=True)
class _Part:
    """A column on the terminal: its header and texts."""

    header: str
    is_key: bool
    cells: Sequence[str]

    @property
    def width(self) -> int:
        words = [cell_len(word) for word in self.header.split()]
        return max([*words, *map(cell_len, self.cells)])

    def lines(self) -> list[str]:
        """The header, in as many lines as fit above the cells, a rule, and the cells."""
        return [*_wrapped(self.header, self.width), "-" * self.width, *self.cells]

    def aligned(self, text: str) -> str:
        space = " " * (self.width - cell_len(text))
        return text + space if self.is_key else space + text


def _parts(table: Table) -> tuple[list[_Part], list[_Part]]:
    """The columns that have one value in all of several rows, and the others. Columns without any
    value are left out."""
    constant, varying = list[_Part](), list[_Part]()
    for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        part = _Part(column.header, column.kind == "key", [shown(cell) for cell in cells])
        if not any(part.cells):
            continue
        named = column.kind != "cost" and all(isinstance(cell, str | int) for cell in cells)
        repeated = len(cells) > 1 and len(set(part.cells)) == 1
        (constant if named and repeated else varying).append(part)
    return constant, varying


def _width(parts: Sequence[_Part]) -> int:
    return sum(part.width for part in parts) + len(_GAP) * max(0, len(parts) - 1)


def _blocks(parts: Sequence[_Part], room: int) -> list[list[_Part]]:
    """Columns into as few blocks as each into the first one that has room left."""
    blocks: list[list[_Part]] = []
    for part in parts:
        for block in blocks:
            if len(_GAP) + _width([*block, part]) <= room:
                block.append(part)
                break
        else:
            blocks.append([part])
    return blocks or [[]]


def _grid(parts: Sequence[_Part]) -> list[str]:
    columns = [part.lines() for part in parts]
    height = max(map(len, columns))
    padded = [[""] * (height - len(column)) + column for column in columns]
    return [
        _GAP.join(part.aligned(text) for part, text in zip(parts, line, strict=True)).rstrip()
        for line in zip(*padded, strict=True)
    ]


def _stacked(parts: Sequence[_Part], width: int) -> list[str]:
    """A line for each cell, its column's name before it; rows are set apart by an empty line."""
    indent = min(max(len(part.header) for part in parts) + len(_GAP), width // 2)
    lines = list[str]()
    for row in zip(*(part.cells for part in parts), strict=True):
        lines += [""] if lines else []
        for part, cell in zip(parts, row, strict=True):
            names = [part.header.ljust(indent), *[" " * indent] * len(cell)]
            lines += map(str.__add__, names, _wrapped(cell, width - indent))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines, none for an empty one."""
    lines = Text(printable(text)).wrap(Console(), width, overflow="fold")
    return [line.plain.rstrip() for line in lines if line.plain.strip()]


def _csv_names(column: Column) -> list[str]:
    ends = ("", "_low", "_high") if column.kind == "interval" else ("",)
    return [f"{column.name}{end}" for end in ends]


def _csv_values(column: Column, cell: Cell) -> list[Any]:
    if column.kind != "interval":
        return [cell]
    return [cell[end] if isinstance(cell, Mapping) else None for end in ("mean", "low", "high")]


def _escaped(cell: str) -> str:
    """A cell that stays in its cell, and is text in any renderer."""
    for character in "\\|<>&`*[]":
        cell = cell.replace(character, f"\\{character}")
    return " ".join(cell.split())
