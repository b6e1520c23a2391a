"""MySQL's functions and operators: the answers of MariaDB 10.11 with MySQL's sql_mode to generated
statements over the small databases of the tests, and errors for calls that MySQL rejects."""

import json
from pathlib import Path

import pytest
from sql_toys import write_data

from rro.intercode_sql.embedded.sqlite import SqliteEngine

ANSWERS = [json.loads(line) for line in (Path(__file__).parent / "functions.jsonl").open()]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp("sql"))
    engine = SqliteEngine(folder / "ic_spider_dbs.sql", folder / "cache")
    yield engine
    engine.close()


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["sql"][7:60])
def test_the_answers_of_a_server(engine, answer):
    assert engine.execute("shop", answer["sql"]).text == answer["rows"]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        (
            "SELECT item, sum(amount) FROM purchase WHERE amount > 1 GROUP BY item WITH ROLLUP",
            "[('cup', Decimal('5')), ('fork', Decimal('6')), ('spoon', Decimal('6')), "
            "(None, Decimal('17'))]",
        ),
        (
            "SELECT item, grouping(item) FROM purchase WHERE amount = 6 GROUP BY item WITH ROLLUP",
            "[('fork', 0), ('spoon', 0), (None, 1)]",
        ),
        ("SELECT count(*) FROM customer WHERE height = 165.3", "[(1,)]"),
        ("SELECT count(*) FROM customer WHERE height IN (165.3)", "[(0,)]"),
    ],
)
def test_rollup_and_floats_with_fixed_digits(engine, sql, rows):
    assert engine.execute("shop", sql).text == rows


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT round()", "Incorrect parameter count in the call to native function 'round'"),
        ("SELECT left('a')", "syntax"),
        ("SELECT upper(item, 1) FROM purchase", "Incorrect parameter count"),
        ("SELECT strftime('%Y', born) FROM customer", "FUNCTION shop.strftime does not exist"),
        ("SELECT my_round_real(1.5)", "FUNCTION shop.my_round_real does not exist"),
        ("SELECT 9223372036854775807 + 1", "BIGINT value is out of range"),
    ],
)
def test_what_mysql_rejects(engine, sql, error):
    assert error in engine.execute("shop", sql).error


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 'a' LIKE BINARY 'A', BINARY 'A' LIKE 'a', BINARY 'a' LIKE 'a'", "[(0, 0, 1)]"),
        ("SELECT 'a' LIKE 'A' COLLATE utf8mb4_bin, 'é' LIKE 'e'", "[(0, 1)]"),
        ("SELECT 'ab' REGEXP 'B', 'ab' COLLATE utf8mb4_bin REGEXP 'B'", "[(1, 0)]"),
        ("SELECT UCASE('a'), LCASE('A')", "[('A', 'a')]"),
        ("SELECT REGEXP_LIKE('abc', 'B'), REGEXP_INSTR('abc', 'c')", "[(1, 3)]"),
        ("SELECT REGEXP_SUBSTR('abc', 'b.'), REGEXP_SUBSTR('abc', 'x')", "[('bc', None)]"),
        ("SELECT REGEXP_REPLACE('abc', '(b)(c)', '$2-$1')", "[('ac-b',)]"),
        ("SELECT CAST(1e30 AS SIGNED), CAST(-1e30 AS SIGNED)", f"[({2**63 - 1}, {-(2**63)})]"),
        ("SELECT DATE_FORMAT('2020-01-05', '')", "[(None,)]"),
        ("SELECT NULL <=> 1.5, 1.5 <=> 1.50, NULL <=> NULL", "[(0, 1, 1)]"),
        ("SELECT count(*) FROM customer WHERE height <=> 165.3", "[(1,)]"),
        ("SHOW FULL TABLES LIKE 'c%'", "[('customer', 'BASE TABLE')]"),
    ],
)
def test_what_a_server_answers(engine, sql, rows):
    assert engine.execute("shop", sql).text == rows


def test_show_full_tables_lists_them(engine):
    shown = engine.execute("shop", "SHOW FULL TABLES").text
    assert "('customer', 'BASE TABLE')" in shown


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        *(
            (f"SELECT {value}", "DOUBLE value is out of range")
            for value in (
                "POW(10, 400)",
                "POWER(0, -1)",
                "POW(-8, 1/3)",
                "EXP(1000)",
                "COT(0)",
                "1e308 * 10",
                "1e308 + 1e308",
                "-1e308 * 10",
            )
        ),
        ("SELECT DISTINCT ALL name FROM customer", "Incorrect usage of ALL and DISTINCT"),
        ("WITH a AS (SELECT 1), a AS (SELECT 2) SELECT * FROM a", "Not unique table/alias: 'a'"),
        ("SELECT REGEXP_REPLACE('a', 'a', '$1')", "Index out of bounds"),
        ("SELECT COMPRESS('a')", "doesn't yet support 'COMPRESS('a')'"),
    ],
)
def test_what_has_no_value_is_an_error(engine, sql, error):
    assert error in engine.execute("shop", sql).error
