"""Small generated databases with questions, for the quickstart and for tests: no download, all text
made up here.

They have the form of InterCode's files, so statements, observations and rewards work as for the
real data. A database is about one kind of thing, and calls its columns what it likes: a question
about the price is answered by `price`, `cost` or `fee`, so an agent has to look before it asks.
Knows nothing of episodes or rewards.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from rro.config import Section
from rro.files import write_file
from rro.intercode_sql.data import SqlTask

THINGS = (
    *("boat", "lamp", "horse", "coat", "tent", "clock", "drone", "kite", "bench", "wagon"),
    *("robot", "drum", "flute", "ring", "statue", "garden", "bridge", "mill", "tower", "train"),
)
# What a question calls a column, and what a database may call it.
WORDS = {
    "color": ("color", "shade", "tint"),
    "city": ("city", "town", "place"),
    "price": ("price", "cost", "fee"),
    "weight": ("weight", "mass", "kilos"),
    "age": ("age", "years", "old"),
    "owner": ("owner", "keeper", "holder"),
    "name": ("name", "label", "title"),
}
COLORS = ("red", "blue", "green", "black", "white", "yellow")
CITIES = ("Oslo", "Lima", "Cairo", "Delhi", "Quito", "Turin")
NAMES = (
    *("Ada", "Bo", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jun", "Kim", "Leo"),
    *("Mia", "Nils", "Olga", "Pia", "Ravi", "Sue", "Tom", "Uma", "Vera", "Wim", "Yara", "Zoe"),
)
OWNERS = ("Abel", "Bond", "Cruz", "Diaz", "Eder", "Fox", "Gray", "Hale")
RANGES = {"price": range(10, 100), "weight": range(100, 1000), "age": range(1, 60)}
LISTED = {"color": COLORS, "city": CITIES}
# Of how many questions one is for the test.
HELD_OUT = 5


class SampleDatabases(Section):
    """Size of the generated databases."""

    databases: int = Field(12, ge=1, le=len(THINGS))
    """Number of databases, each about another kind of thing."""
    rows: int = Field(12, ge=4, le=len(NAMES))
    """How many things a database lists."""
    questions: int = Field(60, ge=1, le=200)
    """Questions about each database, at most; one of five is a test task."""


DEFAULT_SIZE = SampleDatabases()


@dataclass(frozen=True)
class Database:
    """A generated database: a table of things, and one of their owners."""

    thing: str
    """The thing in the singular; also the database's name."""
    table: str
    """The table of things: the singular or the plural."""
    columns: dict[str, str]
    """What it calls each of the columns that questions name."""
    rows: tuple[dict[str, int | str], ...]
    """The things, by the columns that questions name; "owner" is the owner's number, from 1."""
    owners: tuple[str, ...]

    def dump(self) -> str:
        """The database as mysqldump writes it."""
        kinds = dict.fromkeys(RANGES, "int")
        owner, name = self.columns["owner"], self.columns["name"]
        things = [
            f"{called} {kinds.get(asked, 'text')}"
            for asked, called in self.columns.items()
            if asked != "owner"
        ]
        filled = [(number, *row.values()) for number, row in enumerate(self.rows, start=1)]
        return "\n".join(
            [
                f"CREATE DATABASE IF NOT EXISTS `{self.thing}`;",
                f"USE `{self.thing}`;",
                *_table(owner, [f"{name} text"], list(enumerate(self.owners, start=1))),
                *_table(self.table, [*things, f"{owner}_id int"], filled),
            ]
        )


def _table(name: str, columns: Sequence[str], rows: Sequence[tuple[int | str, ...]]) -> list[str]:
    """The statements that make and fill a table whose first column is its primary key `id`."""
    parts = [column.partition(" ") for column in columns]
    values = ",".join(f"({','.join(map(repr, row))})" for row in rows)
    return [
        f"CREATE TABLE `{name}` (",
        "  `id` int NOT NULL,",
        *(f"  `{column}` {kind} DEFAULT NULL," for column, _, kind in parts),
        "  PRIMARY KEY (`id`)",
        ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;",
        f"INSERT INTO `{name}` VALUES {values};",
    ]


def sample_databases(seed: int = 0, size: SampleDatabases = DEFAULT_SIZE) -> list[Database]:
    """Generate databases; the same arguments give the same ones."""
    stream = random.Random(f"rro sample databases {seed}")
    return [_database(thing, size, stream) for thing in stream.sample(THINGS, size.databases)]


def _database(thing: str, size: SampleDatabases, stream: random.Random) -> Database:
    asked = ["name", *stream.sample(list(LISTED), 2), *stream.sample(list(RANGES), 2), "owner"]
    owners = stream.sample(OWNERS, 4)
    # Numbers differ, so that the highest and the lowest are one thing.
    numbers = {name: stream.sample(RANGES[name], size.rows) for name in asked if name in RANGES}
    listed = {name: stream.sample(LISTED[name], 3) for name in asked if name in LISTED}
    names = stream.sample(NAMES, size.rows)

    def value(column: str, row: int) -> int | str:
        if column == "name":
            return names[row]
        if column == "owner":
            return stream.randint(1, len(owners))
        return numbers[column][row] if column in numbers else stream.choice(listed[column])

    rows = tuple({column: value(column, row) for column in asked} for row in range(size.rows))
    columns = {name: stream.choice(WORDS[name]) for name in asked}
    table = stream.choice((thing, _plural(thing)))
    return Database(thing, table, columns, rows, tuple(owners))


def _plural(thing: str) -> str:
    return f"{thing}es" if thing.endswith("ch") else f"{thing}s"


def questions(database: Database) -> Iterator[tuple[str, str, str]]:
    """All (question, gold query, hardness) about a database."""
    thing, things, table = database.thing, _plural(database.thing), database.table
    called, name = database.columns, database.columns["name"]
    listed = [column for column in called if column in LISTED]
    numbers = [column for column in called if column in RANGES]
    for column in listed:
        for value in dict.fromkeys(str(row[column]) for row in database.rows):
            where = f"WHERE {called[column]} = '{value}'"
            has, of = f"have the {column} {value}", f"with the {column} {value}"
            yield f"Which {things} {has}?", f"SELECT {name} FROM {table} {where}", "easy"
            yield f"How many {things} {has}?", f"SELECT count(*) FROM {table} {where}", "easy"
            for number in numbers:
                yield (
                    f"What is the average {number} of {things} {of}?",
                    f"SELECT avg({called[number]}) FROM {table} {where}",
                    "medium",
                )
                yield (
                    f"Which of the {things} {of} has the highest {number}?",
                    f"SELECT {name} FROM {table} {where} ORDER BY {called[number]} DESC LIMIT 1",
                    "hard",
                )
        yield (
            f"How many {things} are there of each {column}?",
            f"SELECT {called[column]}, count(*) FROM {table} GROUP BY {called[column]}",
            "medium",
        )
    for number in numbers:
        for most, order in (("highest", " DESC"), ("lowest", "")):
            yield (
                f"Which {thing} has the {most} {number}?",
                f"SELECT {name} FROM {table} ORDER BY {called[number]}{order} LIMIT 1",
                "medium",
            )
    yield from _about_one(database, numbers)


def _about_one(database: Database, numbers: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Questions about one of the things, by its name."""
    thing, table, called = database.thing, database.table, database.columns
    name, owner = called["name"], called["owner"]
    for row in database.rows:
        for number in numbers:
            yield (
                f"What is the {number} of the {thing} {row['name']}?",
                f"SELECT {called[number]} FROM {table} WHERE {name} = '{row['name']}'",
                "easy",
            )
        yield (
            f"What is the name of the owner of the {thing} {row['name']}?",
            f"SELECT T2.{name} FROM {table} AS T1 JOIN {owner} AS T2 ON T1.{owner}_id = T2.id "
            f"WHERE T1.{name} = '{row['name']}'",
            "hard",
        )


def sample_tasks(
    databases: Sequence[Database], seed: int = 0, size: SampleDatabases = DEFAULT_SIZE
) -> tuple[list[SqlTask], dict[str, list[int]]]:
    """The tasks about generated databases, and the indices of each split. A gold query stands in
    one split only."""
    stream = random.Random(f"rro sample questions {seed}")
    asked = [
        (database.thing, *question)
        for database in databases
        for question in _some(list(questions(database)), size.questions, stream)
    ]
    stream.shuffle(asked)
    tasks = [
        SqlTask(f"sample-{number}", database, question, gold, hardness)
        for number, (database, question, gold, hardness) in enumerate(asked)
    ]
    tested = len(tasks) // HELD_OUT
    return tasks, {"test": list(range(tested)), "train": list(range(tested, len(tasks)))}


def _some(
    every: list[tuple[str, str, str]], most: int, stream: random.Random
) -> list[tuple[str, str, str]]:
    return stream.sample(every, min(most, len(every)))


def write_dump(databases: Sequence[Database], folder: Path) -> Path:
    """Write the dump of generated databases into a folder, if it is not there; its file. Its name
    depends on its text, so others of any size and seed stand beside it."""
    text = "\n\n".join(database.dump() for database in databases) + "\n"
    file = folder / f"sample-{hashlib.sha256(text.encode()).hexdigest()[:16]}.sql"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_file(file, text)
    return file
