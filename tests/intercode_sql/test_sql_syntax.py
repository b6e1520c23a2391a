"""Syntax errors: that they are found, also where others would forgive them, and about where."""

import runpy
from pathlib import Path

import pytest
from sql_toys import write_dump

from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.intercode_sql.embedded.syntax import parsed

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
    # Other systems' SQL.
    "SELECT name, FROM customer",
    "SELECT name FROM customer LIMIT 1+1",
    "SELECT name FROM customer LIMIT '2'",
    "SELECT name FROM customer LIMIT ALL",
    "SELECT name FROM customer WHERE id == 1",
    "SELECT name FROM customer WHERE name ILIKE 'a%'",
    "SELECT id::text FROM customer",
    "SELECT CAST(id AS TEXT) FROM customer",
    "SELECT TRY_CAST(id AS CHAR) FROM customer",
    "SELECT name FROM customer WHERE id IS DISTINCT FROM 2",
    "SELECT name FROM customer ORDER BY id NULLS LAST",
    "SELECT DISTINCT ON (name) name FROM customer",
    "SELECT name FROM customer SORT BY id",
    "SELECT name FROM customer TABLESAMPLE (10 PERCENT)",
    "SELECT * EXCEPT(id) FROM customer",
    "SELECT name FROM customer GROUP BY",
    "SELECT name FROM customer LIMIT 1 UNION SELECT name FROM customer",
    "SELECT name FROM customer ORDER BY id UNION SELECT name FROM customer",
    "SELECT name FROM customer FETCH FIRST 2 ROWS ONLY",
    "SELECT name, * FROM customer",
    "SELECT count() FROM customer",
    "SELECT max(name, id) FROM customer",
    "SELECT count(*) FILTER (WHERE id > 1) FROM customer",
    "SELECT [name] FROM customer",
    "SELECT c.name FROM customer c FULL OUTER JOIN purchase p ON c.id = p.id",
    "SELECT c.name FROM customer c LEFT JOIN purchase p",
    "SELECT name FROM customer WHERE id NOT NULL",
    "SELECT name FROM customer WHERE id IN ()",
    "SELECT x.name FROM customer AS x(name)",
    "SELECT 1 -- 1\n)",
    "SELECT left(name) FROM customer",
    "SELECT last(name) FROM customer",
    "SELECT /* 1",
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
        "SELECT 1" + ", 1" * 4000,
    ],
)
def test_what_would_take_too_long_or_deep_is_refused(engine, sql):
    assert "nested too deeply" in engine.execute("shop", sql).error


def test_length(engine):
    assert "max_allowed_packet" in engine.execute("shop", "SELECT '" + "x" * 30_000 + "'").error


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'a' 'b', \"c\"\"d\", 'it\\'s', N'x', 0x41, b'1', .5, 1e3, 1.",
        "SELECT 1 # one\n + 2 -- two\n /* 3 */ + /*! 4 */ + 5",
        "SELECT c.`name`, c.id FROM shop.customer AS c USE INDEX (PRIMARY)",
        "SELECT ALL name date FROM customer AS status WHERE NOT id <=> 3 XOR name LIKE '' ",
        "SELECT (SELECT 1), ((SELECT 2)), (((3)))",
        "(SELECT 1) UNION ALL (SELECT 2 ORDER BY 1 LIMIT 1) ORDER BY 1 LIMIT 0, 5",
        "WITH a (x) AS (SELECT 1), b AS (SELECT 2) SELECT * FROM a, b;",
        "SELECT * FROM (customer c JOIN purchase p ON c.id = p.customer_id)",
        "SELECT a.id FROM customer a JOIN customer b JOIN customer c ON c.id = b.id ON a.id = b.id",
        "SELECT CASE WHEN id IS NOT NULL THEN 1 END FROM customer WHERE id BETWEEN 1 AND 2 AND 1",
    ],
)
def test_right(engine, sql):
    assert parsed(sql).words[-1] == "EOF"


@pytest.mark.parametrize(
    ("sql", "calls"),
    [
        ("SELECT abs(1), f(), g(a, h((b, c), d) + 1)", [("abs", 1), ("f", 0), ("h", 2), ("g", 2)]),
        ("WITH t (a, b) AS (SELECT 1, 2) SELECT count(*) FROM t", []),
        ("SELECT sum (id) FROM customer", [("sum", 1)]),
    ],
)
def test_calls(sql, calls):
    statement = parsed(sql)
    found = [
        (statement.name(node.first), len(node.nodes()))
        for node in statement.named
        if node.kind == "function"
    ]
    assert found == calls


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT string_agg(name, ',') FROM customer", "string_agg"),
        ("SELECT len(name) FROM customer", "len"),
        ("SELECT strftime('%Y', born) FROM customer", "strftime"),
        ("SELECT ci(name) FROM customer", "ci"),
        ("SELECT left_of(name, 1) FROM customer", "left_of"),
        ("SELECT sum (id) FROM customer", "sum"),
    ],
)
def test_functions_that_do_not_exist(engine, sql, name):
    assert f"FUNCTION shop.{name} does not exist" in engine.execute("shop", sql).text


def test_the_tables_are_those_of_the_grammar():
    pytest.importorskip("lark")
    root = Path(__file__).parents[2]
    grammar = runpy.run_path(str(root / "tools" / "grammar.py"))
    folder = root / "src" / "rro" / "intercode_sql" / "embedded"
    text = (folder / "mysql.lark").read_text(encoding="utf-8")
    assert grammar["written"](text) == (folder / "mysql.json").read_text(encoding="utf-8")
