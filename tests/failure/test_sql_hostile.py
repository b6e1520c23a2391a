"""Agents' text against the embedded engine: whatever is written is answered, nothing is written,
nothing runs away."""

# ruff: noqa: E501 (a statement stays on one line)

import hashlib
import logging
import random
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sql_toys import write_data

from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.types import Message, StepResult, Task

SECONDS = 6.0  # of processor time: parsing and rendering count, too


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def benchmark(folder):
    return open_intercode_sql(IntercodeSqlOptions(data=folder, cache=folder / "cache"))


@pytest.fixture(autouse=True)
def nothing_written_and_nothing_unforeseen(folder, benchmark, caplog):
    """The file stays as it is, and the engine met nothing that it had to guess an answer to."""
    (file,) = (folder / "cache").iterdir()
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    with caplog.at_level(logging.WARNING, logger="rro"):
        yield
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    assert [path.name for path in (folder / "cache").iterdir()] == [file.name]
    assert [record.getMessage() for record in caplog.records] == []


def answer(benchmark, text):
    """The environment's answer to an agent's text, and the checks that hold for all."""
    environment = benchmark.make()
    environment.reset(Task("dev-0", 0))
    begun = time.thread_time()
    result = environment.step(Message("assistant", text))
    assert time.thread_time() - begun < SECONDS
    assert isinstance(result, StepResult)
    assert result.observation.startswith("Observation: ")
    assert len(result.observation) <= 400 or "I don't understand" in result.observation
    return result


def run(benchmark, sql):
    return answer(benchmark, f"Action: ```sql\n{sql}\n```").observation.removeprefix(
        "Observation: "
    )


WRITES = [
    "DROP TABLE customer", "DELETE FROM customer", "UPDATE customer SET name = 'x'", "INSERT INTO customer VALUES (9)",
    "ALTER TABLE customer ADD COLUMN x INT", "CREATE TABLE t (a INT)", "TRUNCATE customer", "REPLACE INTO customer VALUES (1)",
    "SELECT 1; DROP TABLE customer", "SELECT 1;; DELETE FROM customer; --", "/* x */ DROP TABLE customer",
    "SELECT * FROM customer INTO OUTFILE 'x'", "SELECT load_extension('x')", "SELECT writefile('a', 'b')",
    "PRAGMA query_only = OFF", "ATTACH DATABASE 'x' AS y", "VACUUM INTO 'x'", "DETACH main", "BEGIN; DELETE FROM customer",
    "SELECT * FROM sqlite_master", "SELECT * FROM `shop.customer`", "SELECT readfile('/etc/passwd')",
    "SELECT * FROM pragma_table_info('x')", "WITH d AS (DELETE FROM customer RETURNING id) SELECT * FROM d",
    "SELECT name FROM customer WHERE name = '' OR 1=1; DROP TABLE customer; --", "SET GLOBAL read_only = 0", "LOCK TABLES customer WRITE",
    "GRANT ALL ON *.* TO 'x'", "LOAD DATA INFILE 'x' INTO TABLE customer", "CALL p()", "DO sleep(100)", "KILL 1", "SHUTDOWN",
    "EXPLAIN DELETE FROM customer", "DESC customer; DROP TABLE customer", "USE shop; DROP TABLE customer",
]  # fmt: skip


@pytest.mark.parametrize("sql", WRITES)
def test_writes_and_escapes_are_errors(benchmark, sql):
    assert run(benchmark, sql).startswith("Error executing query: ")
    assert run(benchmark, "SELECT count(*) FROM customer") == "[(5,)]"


PRODUCT = ", ".join(f"purchase p{n}" for n in range(12))
RUNAWAYS = [
    f"SELECT count(*) FROM {PRODUCT}",
    f"SELECT * FROM {PRODUCT}",
    f"SELECT DISTINCT concat(p0.item, p1.item, p2.item, p3.item, p4.item, p5.item, p6.item, p7.item) FROM {PRODUCT}",
    f"SELECT p0.item FROM {PRODUCT} ORDER BY p1.item, p2.rating, p3.price",
    f"SELECT group_concat(p0.item, p1.item), std(p2.price) FROM {PRODUCT}",
    f"SELECT sum(p0.price) OVER (ORDER BY p1.item) FROM {PRODUCT}",
    f"SELECT item FROM purchase WHERE price > (SELECT avg(p0.price) FROM {PRODUCT} WHERE p1.price > purchase.price)",
    "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT sleep(1000), benchmark(1000000000, md5('x'))",
]
BOUNDED = [
    f"SELECT count(*) FROM {PRODUCT} WHERE repeat(p0.item, 9000) = repeat(p1.item, 9001)",
    "SELECT item REGEXP '(a|aa)+$', concat(repeat('a', 60), 'b') REGEXP '(a|aa|a?)+$' FROM purchase",
    "SELECT repeat('a', 1000000000)", "SELECT lpad('a', 1000000000, 'b')", "SELECT space(2000000000)",
    "SELECT replace(repeat('a', 60000), 'a', repeat('b', 60000))", "SELECT 99999999999999999999 * 99999999999999999999",
    "SELECT 9223372036854775807 + 1, -9223372036854775808 - 1, abs(-9223372036854775808)", "SELECT 1e308 * 10, -1e999",
    "SELECT round(1.5, 1000), truncate(1.5, -1000), format(1, 1e9), power(10, 400), exp(1000)",
    "SELECT sum(9223372036854775807) FROM purchase", "SELECT cast('9999999999999999999' AS SIGNED)",
    "SELECT date_add('9999-12-31', INTERVAL 1 DAY), date_add('2020-01-01', INTERVAL 1e300 YEAR), last_day('x')",
    "SELECT substring('abc', -9223372036854775808, 9223372036854775807), left('abc', 1e300), substring_index('a', '', 1)",
    "SELECT * FROM customer LIMIT 99999999999999999999999", "SELECT '" + "\\" * 4000 + "'", "SELECT " + "'a' " * 900,
    "SELECT 1" + "+1" * 1900, "SELECT 1 WHERE 1" + " AND 1" * 1900, "SELECT 1" + " UNION SELECT 1" * 600,
    "SELECT " + "(" * 59 + "1" + ")" * 59, "SELECT " + "abs(" * 59 + "1" + ")" * 59, "SELECT " + "(SELECT " * 59 + "1" + ")" * 59,
    "SELECT " + "CASE WHEN 1 THEN " * 59 + "1" + " END" * 59, "SELECT " + "- " * 5000 + "1", "SELECT * FROM customer" + " JOIN customer" * 50,
    "SELECT * FROM " + ", ".join(f"customer c{n}" for n in range(70)), "SELECT 1 IN (" + ",".join("1" * 1900) + ")",
    "SELECT '\0', 'a\0b', concat('\0', char_length('\0'))", "\0", "SELECT '\ud800', '\udfff'", "SELECT `\ud800` FROM customer",
    "SELECT '\u202e\ufeff\u0000\U0010ffff'", "ＳＥＬＥＣＴ １", "SELECT 'İstanbul' = 'istanbul', 'ﬁ' LIKE '_i', 'ŉ'", "x" * 30_000,
    "SELECT NULL + NULL, NULL = NULL, NULL IN (NULL), concat(NULL), count(NULL), max(NULL), NULL LIKE NULL, NULL REGEXP NULL",
    "SELECT * FROM (SELECT NULL) t ORDER BY 1", "SELECT NULL UNION SELECT NULL", "DESC `", "SHOW TABLES LIKE '", "USE ``", "",
    ";", "--", "/*", "#", "'", "`", "SELECT /* unfinished", "SELECT @a := 1, @@global.x, :b, ?, $1", "SELECT {d '2020-01-01'}",
    "SELECT customer.*.* FROM customer", "SELECT ...", "SELECT a..b FROM customer", "SELECT * * * FROM customer", "SELECT (((",
    "SELECT 1 FROM customer PARTITION (p0) FORCE INDEX (PRIMARY) WHERE 1 FOR UPDATE", "VALUES ROW(1)", "TABLE customer",
    "SELECT " + "(" * 30 + "1" + " BETWEEN 1 AND 2)" * 30, "SELECT " + "nullif(" * 40 + "1" + ", 1)" * 40,
    "SELECT " + "CASE " * 40 + "1" + " WHEN 1 THEN 1 WHEN 2 THEN 2 END" * 40,
    "WITH a0 AS (SELECT 1 x)" + "".join(f", a{n + 1} AS (SELECT p.x FROM a{n} p JOIN a{n} q ON 1)" for n in range(40)) + " SELECT * FROM a40",
]  # fmt: skip


@pytest.mark.parametrize("sql", RUNAWAYS)
def test_runaways_are_stopped(benchmark, sql):
    assert run(benchmark, sql).startswith("Error executing query: ")


@pytest.mark.parametrize("sql", BOUNDED, ids=range(len(BOUNDED)))
def test_extremes_are_answered(benchmark, sql):
    run(benchmark, sql)


# --- fuzzing

SEEDS = [
    "SELECT name, city FROM customer WHERE born > '1980-01-01' AND height BETWEEN 1 AND 200 ORDER BY name DESC LIMIT 3",
    "SELECT c.name, count(*) AS n, sum(p.price * p.amount) FROM customer AS c JOIN purchase p ON c.id = p.customer_id GROUP BY c.id HAVING n > 1",
    "SELECT item FROM purchase WHERE customer_id IN (SELECT id FROM customer WHERE name LIKE 'a%') UNION SELECT name FROM customer",
    "SELECT DISTINCT upper(item), CASE WHEN price > 4 THEN 'dear' ELSE NULL END FROM purchase EXCEPT SELECT 'CUP', 'dear'",
    "WITH t AS (SELECT customer_id i, max(price) m FROM purchase GROUP BY i) SELECT * FROM t LEFT JOIN customer ON id = i",
    "SELECT date_add(bought, INTERVAL 1 DAY), year(bought), cast(price AS CHAR), -rating, NOT amount, 7 DIV 2 FROM purchase",
    "SELECT group_concat(DISTINCT item ORDER BY price DESC SEPARATOR '|'), avg(rating), std(amount) FROM purchase",
    "SELECT name, rank() OVER (PARTITION BY city ORDER BY height) FROM customer WHERE EXISTS (SELECT 1 FROM purchase WHERE price IS NULL)",
    "SELECT (SELECT max(price) FROM purchase WHERE customer_id = customer.id), 1 > ALL (SELECT amount FROM purchase) FROM customer",
    "SHOW COLUMNS FROM purchase LIKE '%i%'", "DESC customer", "USE zoo", "SHOW TABLES", "DELETE FROM customer WHERE 1 = 1",
]  # fmt: skip
JUNK = [
    "'", '"', "`", ";", "--", "/*", "*/", "#", "\0", "\ud800", "é", "😀", "\\", "%", "(", ")", ",", ".", "*", "NULL", "@x", "@@version",
    "0x", "x'41'", "b'01'", "1e999", "-1", "99999999999999999999", "UNION", "SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY",
    "LIMIT", "OFFSET", "INTERVAL 1 DAY", "CASE WHEN", "END", "OVER (", "IN (", "EXISTS (SELECT 1", "repeat('a', 65000)", "REGEXP '(a+)+$'",
    "DIV", "XOR", "NOT", "IS", "LIKE", "ESCAPE", "BETWEEN", "AND", "COLLATE utf8mb4_bin", "BINARY", "CAST(1 AS", "DISTINCT", "WITH ROLLUP",
    "USING (id)", "NATURAL JOIN", "LEFT JOIN purchase ON 1", ", purchase q, customer r", "ANY", "ALL", "ROW(1, 2)", ":=", "<=>", "||", "&&",
    "->", "!", "~", "^", "<<", "rank", "show", "= (SELECT id FROM customer)", "IS NOT TRUE", "AS x", "submit", "```", "Action:",
]  # fmt: skip
PIECES = re.compile(r"'[^']*'|\w+|\s+|\S")
WORDS = [piece for seed in SEEDS for piece in PIECES.findall(seed) if not piece.isspace()]


def mutated(chance: random.Random) -> str:
    """A statement with a few pieces dropped, doubled, swapped, or replaced by others and by
    junk."""
    pieces = PIECES.findall(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 6)):
        place, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
        match chance.randrange(5):
            case 0 if len(pieces) > 1:
                del pieces[place]
            case 1:
                pieces.insert(place, f" {chance.choice(JUNK)} ")
            case 2:
                pieces[place] = chance.choice(WORDS)
            case 3:
                pieces[place], pieces[other] = pieces[other], pieces[place]
            case _:
                pieces[place:place] = pieces[max(0, place - 8) : place]
    return "".join(pieces)


def fuzz(benchmark, count, seed):
    chance = random.Random(seed)
    for number in range(count):
        sql = mutated(chance)
        text = sql if number % 10 == 9 else f"Thought: x\nAction: \n```sql\n{sql}\n```"
        answer(benchmark, text)
    assert run(benchmark, "SELECT count(*) FROM customer") == "[(5,)]"


def test_two_thousand_fuzzed_actions(benchmark):
    fuzz(benchmark, 2_000, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_hundred_thousand_fuzzed_actions(benchmark, seed):
    fuzz(benchmark, 20_000, seed)


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(max_size=80), st.lists(st.sampled_from(WORDS + JUNK), max_size=25).map(" ".join)
    )
)
@example("Action: ```sql\n" * 500)
@example("```" * 5000)
def test_any_text_is_answered(benchmark, text):
    answer(benchmark, text)
    run(benchmark, text)
    run(benchmark, f"SELECT {text} FROM customer")
