"""The embedded engine on a small database: MySQL's types, comparisons, errors and orders, statement
by statement."""

# ruff: noqa: E501 (a statement stays on one line)

import pytest
from sql_toys import write_dump

from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.intercode_sql.engine import Cache, Result


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    engine = SqliteEngine(write_dump(folder), folder / "cache")
    yield engine
    engine.close()


def check(engine, sql, expected):
    assert engine.execute("shop", sql).text == expected


GROUP_ERROR = (
    "Error executing query: Expression #2 of SELECT list is not in GROUP BY clause and contains nonaggregated column "
    "'shop.purchase.price' which is not functionally dependent on columns in GROUP BY clause; this is incompatible with "
    "sql_mode=only_full_group_by"
)

TYPES = [
    ("SELECT 7/2, 7 DIV 2, 7 % 3, 7.0/2, 5/0", "[(Decimal('3.5000'), 3, 1, Decimal('3.50000'), None)]"),
    ("SELECT 1e1/4, '5'+1, 'a'+1, '3b'*2", "[(2.5, 6.0, 1.0, 6.0)]"),
    ("SELECT 0.1 + 0.2, 2*1.50, 1.5*1.5, -1.5", "[(Decimal('0.3'), Decimal('3.00'), Decimal('2.25'), Decimal('-1.5'))]"),
    ("SELECT avg(price), sum(price) FROM purchase", "[(Decimal('4.750000'), Decimal('28.50'))]"),
    ("SELECT avg(amount), sum(amount), max(amount) FROM purchase", "[(Decimal('2.8571'), Decimal('20'), 6)]"),
    ("SELECT sum(rating), avg(rating) FROM purchase", "[(15.3, 2.5500000000000003)]"),
    ("SELECT avg(height), sum(height) FROM customer", "[(172.075, 688.3)]"),
    ("SELECT height / 3 FROM customer LIMIT 1", "[(57.16667,)]"),
    ("SELECT weight FROM customer WHERE id = 2", "[(81.1,)]"),
    ("SELECT born, bought FROM customer, purchase LIMIT 1",
     "[(datetime.date(1990, 5, 1), datetime.datetime(2020, 1, 2, 10, 0))]"),
    ("SELECT if(1 > 2, 'a', 3), ifnull(NULL, 1.5), coalesce(NULL, 'x'), nullif(1, 1)", "[('3', Decimal('1.5'), 'x', None)]"),
    ("SELECT concat(id, name, height, weight) FROM customer LIMIT 1", "[('1Anna171.560.25',)]"),
    ("SELECT CAST('12abc' AS SIGNED), CAST(3.7 AS UNSIGNED), CAST(2 AS DECIMAL(5,2))", "[(12, 4, Decimal('2.00'))]"),
    ("SELECT sum(amount > 2), avg(price IS NULL) FROM purchase", "[(Decimal('3'), Decimal('0.1429'))]"),
]  # fmt: skip
COMPARISONS = [
    ("SELECT id FROM customer WHERE name = 'ANNA'", "[(1,), (5,)]"),  # no case, no trailing spaces
    ("SELECT id FROM customer WHERE name = 'zoe' OR city = 'GENEVE'", "[(3,), (4,)]"),  # no accents
    ("SELECT id FROM customer WHERE name LIKE 'anna'", "[(1,)]"),  # but LIKE counts spaces
    ("SELECT id FROM customer WHERE id IN ('1', 3)", "[(1,), (3,)]"),
    ("SELECT id FROM customer WHERE city = 0", "[(1,), (2,), (3,), (4,)]"),
    # single precision
    ("SELECT weight = 81.1, height = 171.5 FROM customer WHERE id IN (1, 2)", "[(0, 1), (0, 0)]"),
    ("SELECT id FROM customer WHERE born > '1980-1-1'", "[(1,), (3,), (5,)]"),
    ("SELECT count(*) FROM purchase WHERE bought BETWEEN '2020-01-01' AND '2020-12-31'", "[(3,)]"),
    ("SELECT id FROM customer WHERE city NOT LIKE 'b%' OR city IS NULL", "[(4,), (5,)]"),
    ("SELECT 2 > ALL (SELECT 1 UNION SELECT 0), 2 > ALL (SELECT 1 UNION SELECT NULL), 1 = ANY (SELECT 2 UNION SELECT NULL)",
     "[(1, None, None)]"),
    ("SELECT 1 > ALL (SELECT id FROM customer WHERE id > 9), 1 < SOME (SELECT id FROM customer WHERE id > 9)", "[(1, 0)]"),
    ("SELECT id FROM customer WHERE name = ANY (SELECT 'ANNA') AND id <> ALL (SELECT 5)", "[(1,)]"),
    ("SELECT (1, 'a') = (1, 'A'), (1, 2) <> (1, 3), (1, 2) IN ((2, 1), (1, 2)), (1, NULL) = (2, 2)", "[(1, 1, 1, 0)]"),
    ("SELECT 100000000000000000000, DATE '2020-2-3', TIMESTAMP '2020-02-03 4:5:6', name LIKE 'a%' ESCAPE '' FROM customer LIMIT 1",
     "[(Decimal('100000000000000000000'), datetime.date(2020, 2, 3), datetime.datetime(2020, 2, 3, 4, 5, 6), 1)]"),
    ("SELECT city - 1, name IS NULL FROM customer WHERE id = 1 GROUP BY city, name", "[(-1.0, 0)]"),
    ("SELECT id FROM customer LIMIT 1 OFFSET " + "9" * 5000, "[]"),
    ("SELECT 1 + 2 * 3 - 4, 2 * 3 % 4, 1 | 2 & 3 ^ 1, NOT 0 = 1, 1 OR 0 AND 0, 1 XOR 1 AND 0, - 2 * - 3",
     "[(3, 2, 3, 1, 1, 1, 6)]"),
    ("SELECT 'it\\'s', 'a\\%', \"c\"\"d\", 'x''y', 'a\\tb', '\\d'", "[(\"it's\", 'a\\\\%', 'c\"d', \"x'y\", 'a\\tb', 'd')]"),
    # one of them is NULL
    ("SELECT id FROM customer WHERE id NOT IN (SELECT customer_id FROM purchase)", "[]"),
    ("SELECT name FROM customer WHERE name REGEXP '^[ab]' ORDER BY id", "[('Anna',), ('bob',), ('anna ',)]"),
]  # fmt: skip
ORDERS = [
    ("SELECT city, count(*) FROM customer GROUP BY city", "[('Bern', 2), ('Basel', 1), ('Genève ', 1), (None, 1)]"),
    ("SELECT DISTINCT item FROM purchase", "[('cup',), ('plate',), ('spoon',), ('fork',), ('bowl',)]"),
    ("SELECT item FROM purchase UNION SELECT name FROM customer LIMIT 6",
     "[('cup',), ('plate',), ('spoon',), ('fork',), ('bowl',), ('Anna',)]"),
    ("SELECT item FROM purchase INTERSECT SELECT 'CUP'", "[('cup',)]"),
    ("SELECT item FROM purchase EXCEPT SELECT 'CUP'", "[('plate',), ('spoon',), ('fork',), ('bowl',)]"),
    ("SELECT 1 UNION ALL SELECT 1 UNION SELECT 2", "[(1,), (2,)]"),
    # by its index
    ("SELECT customer_id, count(*) FROM purchase GROUP BY customer_id", "[(None, 1), (1, 2), (2, 2), (3, 2)]"),
    ("SELECT item, count(DISTINCT customer_id) FROM purchase GROUP BY item",
     "[('bowl', 1), ('cup', 2), ('fork', 0), ('plate', 1), ('spoon', 1)]"),  # sorted for DISTINCT
    # by the smallest index that has it
    ("SELECT purchase_id FROM purchase", "[(5,), (2,), (6,), (4,), (7,), (1,), (3,)]"),
    ("SELECT purchase_id, item FROM purchase LIMIT 2", "[(1, 'cup'), (2, 'plate')]"),
    ("SELECT name FROM customer ORDER BY city, id DESC", "[('anna ',), ('bob',), ('Zoë',), ('Anna',), (\"O'Neil\",)]"),
    ("SELECT id FROM customer ORDER BY id DESC LIMIT 2 OFFSET 1", "[(4,), (3,)]"),
    ("SELECT a.name, b.item FROM customer a LEFT JOIN purchase b ON a.id = b.customer_id AND b.price > 4.5",
     "[('Anna', 'plate'), ('bob', 'cup'), ('Zoë', None), (\"O'Neil\", None), ('anna ', None)]"),
    ("SELECT b.item, a.name FROM customer a RIGHT JOIN purchase b ON a.id = b.customer_id WHERE b.price < 2",
     "[('spoon', 'bob'), ('fork', None)]"),
    ("WITH c AS (SELECT customer_id i, count(*) n FROM purchase GROUP BY i) SELECT name, n FROM c JOIN customer ON id = i",
     "[('Anna', 2), ('bob', 2), ('Zoë', 2)]"),
    ("SELECT name, (SELECT max(price) FROM purchase WHERE customer_id = customer.id) m FROM customer ORDER BY m DESC LIMIT 2",
     "[('Anna', Decimal('12.00')), ('bob', Decimal('5.00'))]"),
]  # fmt: skip
ERRORS = [
    ("SELECT * FROM customers", "Table 'shop.customers' doesn't exist"),
    ("SELECT * FROM mall.customer", "Unknown database 'mall'"),
    ("SELECT nme FROM customer", "Unknown column 'nme' in 'field list'"),
    ("SELECT c.name FROM customer", "Unknown column 'c.name' in 'field list'"),
    ("SELECT id FROM customer WHERE x = 1", "Unknown column 'x' in 'where clause'"),
    ("SELECT id FROM customer JOIN purchase ON x = id", "Unknown column 'x' in 'on clause'"),
    ("SELECT id FROM customer GROUP BY x", "Unknown column 'x' in 'group statement'"),
    ("SELECT id FROM customer ORDER BY x", "Unknown column 'x' in 'order clause'"),
    ("SELECT id FROM customer ORDER BY 3", "Unknown column '3' in 'order clause'"),
    ("SELECT city FROM customer GROUP BY city HAVING height > 1", "Unknown column 'height' in 'having clause'"),
    ("SELECT id FROM customer WHERE y IN (SELECT x FROM purchase)", "Unknown column 'x' in 'field list'"),
    ("SELECT name n FROM customer WHERE n = 'x'", "Unknown column 'n' in 'where clause'"),
    ("SELECT id FROM customer a, customer b", "Column 'id' in field list is ambiguous"),
    ("SELECT 1 FROM customer, customer", "Not unique table/alias: 'customer'"),
    ("SELECT * FROM (SELECT 1)", "Every derived table must have its own alias"),
    ("SELECT id FROM customer WHERE id = (SELECT customer_id FROM purchase)", "Subquery returns more than 1 row"),
    ("SELECT id FROM customer WHERE id IN (SELECT 1, 2)", "Operand should contain 1 column(s)"),
    ("SELECT id FROM customer WHERE id IN (SELECT 1 LIMIT 1)",
     "This version of MySQL doesn't yet support 'LIMIT & IN/ALL/ANY/SOME subquery'"),
    ("SELECT 1 UNION SELECT 1, 2", "The used SELECT statements have a different number of columns"),
    ("SELECT sum(sum(price)) FROM purchase", "Invalid use of group function"),
    ("SELECT id FROM customer WHERE max(id) = 1", "Invalid use of group function"),
    ("SELECT max(price), item FROM purchase",
     "In aggregated query without GROUP BY, expression #2 of SELECT list contains nonaggregated column "
     "'shop.purchase.item'; this is incompatible with sql_mode=only_full_group_by"),
    ("SELECT *", "No tables used"),
]  # fmt: skip
CATALOGUE = [
    ("SHOW TABLES", "[('customer',), ('empty_one',), ('purchase',)]"),
    ("show tables from zoo;", "[('animal',)]"),
    ("SHOW TABLES LIKE 'c%'", "[('customer',)]"),
    ("SHOW DATABASES LIKE '%o%'", "[('information_schema',), ('performance_schema',), ('shop',), ('zoo',)]"),
    ("DESC zoo.animal name", "[('name', b'varchar(255)', 'NO', 'PRI', None, '')]"),
    ("SHOW COLUMNS FROM purchase LIKE 'a%'", "[('amount', b'int', 'NO', '', b'1', '')]"),
    ("DESCRIBE nothing", "Error executing query: Table 'shop.nothing' doesn't exist"),
    ("DESC `purchase` 'a%'", "[('amount', b'int', 'NO', '', b'1', '')]"),
    ("SHOW TABLES /* all */ WHERE Tables_in_shop > 'D'", "[('empty_one',), ('purchase',)]"),
    ("SHOW COLUMNS FROM customer WHERE `Null` = 'NO' OR Type LIKE 'DATE'",
     "[('ID', b'int', 'NO', 'PRI', None, 'auto_increment'), ('Born', b'date', 'YES', '', None, '')]"),
    ("SHOW TABLES WHERE x = 1", "Error executing query: Unknown column 'x' in 'where clause'"),
    ("SHOW DATABASES WHERE SLEEP(1)", "Error executing query: execute command denied to user ''@'%' for routine 'sleep'"),
    ("SHOW FULL COLUMNS FROM customer LIKE 'city'",
     "[('City', b'text', 'utf8mb4_general_ci', 'YES', '', None, '', 'select,insert,update,references', '')]"),
    ("SHOW INDEX FROM purchase WHERE Non_unique = 1",
     "[('purchase', 1, 'customer_id', 1, 'customer_id', 'A', 4, None, None, 'YES', 'BTREE', '', '', 'YES', None)]"),
    ("SHOW KEYS FROM zoo.animal WHERE Key_name = 'legs_once'",
     "[('animal', 0, 'legs_once', 1, 'legs', 'A', 3, None, None, 'YES', 'BTREE', '', '', 'YES', None)]"),
    ("SHOW CREATE TABLE empty_one",
     "[('empty_one', \"CREATE TABLE `empty_one` (\\n"
     "  `code` char(3) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL DEFAULT '',\\n"
     "  `note` text CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci\\n"
     ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci\")]"),
    ("EXPLAIN SELECT nme FROM customer", "Error executing query: Unknown column 'nme' in 'field list'"),
    ("EXPLAIN FORMAT = JSON SELECT name FROM customer",
     "Error executing query: This version of MySQL doesn't yet support 'EXPLAIN of a query'"),
    ("SHOW GRANTS", "Error executing query: This version of MySQL doesn't yet support 'SHOW GRANTS'"),
    ("SELECT name FROM zoo.animal", "[('owl',), ('cat',), ('ant',)]"),  # by the index of legs
]  # fmt: skip
FUNCTIONS = [
    ("SELECT max(name), min(name) FROM customer", "[('Zoë', 'Anna')]"),
    ("SELECT CASE city WHEN 'BERN' THEN 1 ELSE 0.5 END FROM customer LIMIT 2", "[(Decimal('1.0'),), (Decimal('0.5'),)]"),
    ("SELECT round(2.5), round(3.567, 2), floor(2.7), ceil(2.1), abs(-3), power(2, 3), greatest(1, 2.5)",
     "[(Decimal('3'), Decimal('3.57'), 2, 3, 3, 8.0, Decimal('2.5'))]"),
    ("SELECT upper('zoë'), concat('a', NULL), concat('a', 1), trim('  a '), replace('abab', 'b', 'x'), instr('hello', 'L')",
     "[('ZOË', None, 'a1', 'a', 'axax', 3)]"),
    ("SELECT year(born), monthname(born), date_format(born, '%d.%m.%y'), datediff('2020-03-01', '2020-02-28') FROM customer LIMIT 1",
     "[(1990, 'May', '01.05.90', 2)]"),
    ("SELECT str_to_date('03/02/2020', '%d/%m/%Y'), format(12345.678, 1), char_length('Zoë')",
     "[(datetime.date(2020, 2, 3), '12,345.7', 3)]"),
    ("SELECT substring('hello', 2, 3), substring('hello', -3), left('hello', 2), right('hello', 3)", "[('ell', 'llo', 'he', 'llo')]"),
    ("SELECT now(), curdate(), current_date", "[(datetime.datetime(2026, 11, 22, 12, 0), datetime.date(2026, 11, 22), datetime.date(2026, 11, 22))]"),
]  # fmt: skip


UNSUPPORTED = [
    "SELECT (1, 2)",
    "SELECT name LIKE 'a' ESCAPE '!' '!' FROM customer",
    "SELECT DATE '2020-02-30'",
    "SELECT 'a' _utf8mb4",
    "SELECT name - 1, count(*) FROM customer GROUP BY city",
    "SELECT id FROM customer ORDER BY " + "9" * 5000,
    "SELECT concat((1, 2))",
    "SELECT 1 FROM DUAL WHERE (1, 2)",
    "SELECT (1, 2) < (1, 3)",
    "SELECT (1, 2) IN (1, 2)",
    "SELECT 1 > ALL (SELECT 0 LIMIT 1)",
    "SELECT name FROM customer USE INDEX (nme)",
    "SELECT 1 + INTERVAL 1 DAY * 2",
    "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a",
    "SELECT 1 EXCEPT ALL SELECT 2",
    "SELECT sum(price) OVER w FROM purchase",
    "SELECT sqlite_version()",
    "SELECT frob(1)",
    "SELECT * FROM (SELECT 1 a, 2 a) t",
    "SELECT max (price) FROM purchase",
    "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
]  # what the embedded engine does not know must be an error, not another answer


@pytest.mark.parametrize("sql", UNSUPPORTED)
def test_what_is_not_known_is_an_error(engine, sql):
    assert engine.execute("shop", sql).error is not None


@pytest.mark.parametrize(
    ("sql", "expected"), [*TYPES, *COMPARISONS, *ORDERS, *CATALOGUE, *FUNCTIONS]
)
def test_answers(engine, sql, expected):
    check(engine, sql, expected)


@pytest.mark.parametrize(("sql", "message"), ERRORS)
def test_errors(engine, sql, message):
    check(engine, sql, f"Error executing query: {message}")


def test_only_full_group_by(engine):
    check(engine, "SELECT item, price FROM purchase GROUP BY item", GROUP_ERROR)
    join = "FROM customer c JOIN purchase p ON c.id = p.customer_id"
    for sql in (
        "SELECT item, price FROM purchase GROUP BY purchase_id",  # a key determines its row
        # through the equality of a join
        f"SELECT p.customer_id, c.name {join} GROUP BY p.customer_id",
        "SELECT item, price FROM purchase WHERE price = 4.5 GROUP BY item",  # a constant
        # the same expression
        "SELECT upper(item), concat(upper(item), 'x') FROM purchase GROUP BY upper(item)",
    ):
        assert engine.execute("shop", sql).error is None, sql
    for sql in (
        f"SELECT c.city, c.name {join} GROUP BY c.city",
        "SELECT c.name, p.item FROM customer c LEFT JOIN purchase p ON c.id = p.customer_id GROUP BY c.id",
        "SELECT item FROM purchase GROUP BY item ORDER BY price",
    ):
        assert "only_full_group_by" in engine.execute("shop", sql).error, sql


def test_the_database_in_use_comes_and_goes_with_the_statement(engine):
    used = engine.execute("shop", "USE `Zoo`")
    assert used == Result("zoo")
    assert engine.execute(used.database, "SELECT count(*) FROM animal").texts == ("(3,)",)
    assert engine.execute("shop", "USE nowhere").error == "Unknown database 'nowhere'"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM customer",
        "insert into customer values (1)",
        "DROP TABLE customer",
        "CREATE TABLE t (a int)",
        "SET @a = 1",
        "SELECT * FROM customer INTO OUTFILE 'x'",
        "SELECT id FROM customer FOR UPDATE",
    ],
)
def test_writes_are_refused(engine, sql):
    check(
        engine, sql, "Error executing query: Cannot execute statement in a READ ONLY transaction."
    )
    check(engine, "SELECT count(*) FROM customer", "[(5,)]")


def test_limits(tmp_path):
    engine = SqliteEngine(write_dump(tmp_path), tmp_path / "cache", steps=20_000, rows=30)
    product = "customer a, customer b, customer c, customer d"
    assert (
        engine.execute("shop", "SELECT * FROM customer a, purchase b").error
        == "Result set exceeds the limit of 30 rows"
    )
    interrupted = "Query execution was interrupted, maximum statement execution time exceeded"
    assert (
        engine.execute("shop", f"SELECT count(*) FROM {product}, customer e, customer f").error
        == interrupted
    )
    assert engine.execute("shop", f"SELECT count(*) FROM {product}").texts == ("(625,)",)


def test_results_are_cached_by_database_and_text(engine):
    assert engine.execute("shop", "SELECT 1 + 1") is engine.execute("shop", " SELECT 1 + 1 ; ")
    assert engine.execute("shop", "SELECT database()") != engine.execute("zoo", "SELECT database()")


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = Cache(statements=3, size=20_000)
    for number in range(3):
        cache.put(("d", str(number)), Result("d", ((number,),)))
    assert cache.get(("d", "0")) is not None
    cache.put(("d", "3"), Result("d"))
    assert [cache.get(("d", str(number))) is None for number in range(4)] == [
        False,
        True,
        False,
        False,
    ]
    cache.put(("d", "big"), Result("d", (("x" * 10_000,),)))
    assert cache.get(("d", "big")) is not None
    assert cache.get(("d", "3")) is None


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) FROM (customer)", "[(5,)]"),
        ("SELECT count(*) FROM ((customer) JOIN (animal, purchase))", None),
        (
            "SELECT count(*) FROM customer a JOIN customer b JOIN customer c ON c.id = b.id "
            "ON a.id = b.id",
            "[(5,)]",
        ),
        # One of the two has a NULL.
        ("SELECT count(*) FROM customer a NATURAL JOIN customer b WHERE a.id < 3", "[(1,)]"),
        ("SELECT count(*) FROM customer a STRAIGHT_JOIN customer b ON a.id = b.id", "[(5,)]"),
        ("SELECT x + y FROM (SELECT 1, 2) AS t (x, y)", "[(3,)]"),
        ("WITH t (x, y) AS (SELECT 1, 2) SELECT y FROM t", "[(2,)]"),
        ("WITH t (x) AS (SELECT 1, 2) SELECT x FROM t", None),
        ("SELECT max(shop.customer.id) FROM customer", "[(5,)]"),
        ("SELECT max(zoo.customer.id) FROM customer", None),
        ("SELECT zoo.customer.* FROM customer", None),
        ("SELECT 1 FROM DUAL WHERE 1 = 1", "[(1,)]"),
        ("SELECT 1 + /*! 1 */ /* + 5 */ -- 7", "[(2,)]"),
        (
            "SELECT id < 3 AS low, name = 'x' AS x, count(*) FROM customer "
            "GROUP BY low, x WITH ROLLUP",
            "[(0, 0, 3), (0, None, 3), (1, 0, 2), (1, None, 2), (None, None, 5)]",
        ),
    ],
)
def test_clauses(engine, sql, rows):
    if rows is None:
        assert engine.execute("shop", sql).error is not None
    else:
        check(engine, sql, rows)
