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
