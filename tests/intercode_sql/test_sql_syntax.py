"""Syntax errors: that they are found, also where SQLGlot would forgive them, and about where."""

import pytest
from sql_toys import write_dump

from rro.intercode_sql.embedded.sqlite import SqliteEngine

ERROR = (
    "Error executing query: You have an error in your SQL syntax; check the manual that "
    "corresponds to your MySQL server"
)
WRONG = [
    "SELECT rank FROM customer",  # a reserved word
    "SELECT * FROM show",
    "SELECT <x> FROM customer",
    "SELECT id FROM customer WHERE name = <n>",
    "SELECT id FROM customer\nWHERE name = 'x' \nThis query selects a",
    "SELECT id FROM customer WHERE name = 'Gold",
    "SELECT id FROM customer WHERE (id = 1",
    "SELECT id FROM customer)",
    "SELECT 1; DROP TABLE customer",
    "SELECT * FROM customer INTO OUTFILE 'x'",
    "It seems that",
    "submit",
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("syntax")
    return SqliteEngine(write_dump(folder), folder / "cache")


@pytest.mark.parametrize("sql", WRONG)
def test_wrong(engine, sql):
    assert engine.execute("shop", sql).text.startswith(ERROR)


@pytest.mark.parametrize(
    ("sql", "near", "line"),
    [
        ("SELECT id FROM customer\nWHERE FROM x", "FROM x", 2),
        ("SELECT id FROM show", "show", 1),
        ("x" + "y" * 200, "x" + "y" * 79, 1),
    ],
)
def test_near(engine, sql, near, line):
    assert engine.execute("shop", sql).text.endswith(
        f"for the right syntax to use near '{near}' at line {line}"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT c.name AS `rank`, c.id FROM customer c",
        "(SELECT id FROM customer LIMIT 1) UNION (SELECT 2) ORDER BY 1 LIMIT 2",
        "SELECT CAST(id AS CHAR) AS b, max(height) FROM customer GROUP BY b HAVING max(height) > 1",
        "WITH c AS (SELECT 1 a) SELECT * FROM c",
        "SELECT 'semi;colon' -- and a comment; here\n",
        "SELECT id FROM customer ORDER BY id DESC LIMIT 2, 3;;",
    ],
)
def test_these_are_sql(engine, sql):
    assert engine.execute("shop", sql).error is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 100 + "1" + ")" * 100,
        "SELECT * FROM customer" + " JOIN customer" * 40,
        "SELECT 1" + ", 1" * 4000,
    ],
)
def test_what_would_take_too_long_or_deep_is_refused(engine, sql):
    assert "nested too deeply" in engine.execute("shop", sql).error


def test_length(engine):
    assert "max_allowed_packet" in engine.execute("shop", "SELECT '" + "x" * 30_000 + "'").error
