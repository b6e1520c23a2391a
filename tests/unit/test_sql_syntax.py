"""Syntax errors: that they are found where SQLGlot would forgive them, and the place that MySQL names."""

import pytest

from rro.envs.intercode_sql.embedded.syntax import SqlError, cleaned, parse

NEAR = [
    ("SELECT AVG(rank) AS r FROM players", ") AS r FROM players", 1),
    ("SELECT name, rank FROM t", "FROM t", 1),
    ("SELECT * FROM show", "show", 1),
    ("SELECT * FROM match WHERE 1", "match WHERE 1", 1),
    ("SELECT a FROM t JOIN like l ON 1", "like l ON 1", 1),
    ("SELECT <x> FROM t", "<x> FROM t", 1),
    ("SELECT a FROM t WHERE b = <n>", "<n>", 1),
    ("SELECT a FROM t WHERE a IS 0", "0", 1),
    ("SELECT a FROM t WHERE a IS NOT 'x'", "'x'", 1),
    ("SELECT a FROM t\nWHERE b = 'x' \nThis query selects a", "This query selects a", 3),
    ("SELECT a FROM t GROUP BY a WHERE b", "WHERE b", 1),
    ("SELECT a FROM t LIMIT 1 UNION SELECT 2", "UNION SELECT 2", 1),
    ("SELECT a FROM t WHERE b INNER JOIN u ON 1", "INNER JOIN u ON 1", 1),
    ("SELECT COUNT(\\*) FROM t", "\\*) FROM t", 1),
    ("SELECT count (*) FROM t", "*) FROM t", 1),
    ("SELECT MIN(a), * FROM t", "* FROM t", 1),
    ("SELECT a FROM t WHERE b = 'Gold", "'Gold", 1),
    ("SELECT a FROM t WHERE c LIKE b'x'", "b'x'", 1),
    ("SELECT a FROM t WHERE (b = 1", "", 1),
    ("SELECT a FROM t)", ")", 1),
    ("SELECT", "", 1),
    ("SELECT DISTINCT FROM t", "FROM t", 1),
    ("SELECT a FROM t WHERE a IN ()", ")", 1),
    ("SELECT a FROM t WHERE a IN b", "b", 1),
    ("SELECT CAST(a AS INT) FROM t", "INT) FROM t", 1),
    ("SELECT a FROM t LEFT JOIN u WHERE 1", "WHERE 1", 1),
    ("SELECT 1; DROP TABLE t", "DROP TABLE t", 1),
    ("It seems that", "It seems that", 1),
    ("submit", "submit", 1),
]


@pytest.mark.parametrize(("sql", "near", "line"), NEAR)
def test_near(sql, near, line):
    with pytest.raises(SqlError) as raised:
        parse(sql)
    assert str(raised.value).endswith(f"for the right syntax to use near '{near}' at line {line}")


def test_no_more_than_eighty_characters_are_quoted():
    with pytest.raises(SqlError, match=f"near 'x{79 * 'y'}' at line 1$"):
        parse("x" + "y" * 200)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT t.rank, `show`, 'from' FROM t",
        "SELECT rank() OVER (ORDER BY a) FROM t",
        "SELECT a FROM t WHERE a IS NOT NULL AND b IS TRUE",
        "SELECT EXTRACT(YEAR FROM d), GROUP_CONCAT(a ORDER BY b SEPARATOR ';') FROM t",
        "(SELECT a FROM t LIMIT 1) UNION (SELECT 2) ORDER BY 1 LIMIT 2",
        "SELECT CAST(a AS CHAR) AS b, max(c) FROM t GROUP BY b HAVING max(c) > 1",
        "SELECT a FROM t NATURAL LEFT JOIN u WHERE 1",
        "SELECT a FROM (t JOIN u ON 1) LEFT JOIN v ON 1",
        "WITH c AS (SELECT 1) SELECT * FROM c",
        "SELECT 'semi;colon' -- and a comment; here\n",
        "SELECT POSITION('a' IN b), a NOT IN (1) FROM t",
        "SELECT a FROM t ORDER BY a DESC LIMIT 2, 3",
    ],
)
def test_these_are_sql(sql):
    assert parse(cleaned(sql)) is not None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 100 + "1" + ")" * 100,
        "SELECT " + "NOT " * 3000 + "1",
        "SELECT * FROM t" + " JOIN u" * 40,
        "SELECT 1" + ", 1" * 4000,
    ],
)
def test_what_would_take_too_long_or_deep_is_refused(sql):
    with pytest.raises(SqlError, match="nested too deeply"):
        parse(sql)


def test_length():
    with pytest.raises(SqlError, match="max_allowed_packet"):
        parse("SELECT '" + "x" * 30_000 + "'")


def test_cleaned():
    assert cleaned("  SELECT 1 ;; \n") == "SELECT 1"
