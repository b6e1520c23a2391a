"""InterCode-SQL on a real server: a MariaDB of Debian's packages that this test starts on
loopback."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sql_toys import write_data

from rro.environments.registry import open_benchmark
from rro.errors import DataError, RroError, UsageError
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.intercode_sql.engine import INTERRUPTED
from rro.intercode_sql.server import ServerEngine, connect, in_lower_case, parse_url
from rro.intercode_sql.server_dump import load_dump
from rro.intercode_sql.verify import run_verify
from rro.types import Message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://ann:secret@db.example:3307", "mysql://ann@db.example:3307"),
        ("mariadb://ann@db.example/x", "mysql://ann@db.example:3306"),
    ],
)
def test_urls(url, shown, monkeypatch):
    monkeypatch.setenv("RRO_SQL_PASSWORD", "from the environment")
    address = parse_url(url)
    assert repr(address) == str(address) == shown
    assert address.password == ("secret" if "secret" in url else "from the environment")


@pytest.mark.parametrize(
    "url", ["mysql://", "http://ann:secret@host", "mysql://host", "mysql://ann:secret@host:x"]
)
def test_wrong_urls_do_not_show_the_password(url):
    with pytest.raises(UsageError, match="must be mysql://user@host:port") as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


def test_a_recipe_must_not_hold_the_password():
    with pytest.raises(UsageError, match=r"put it into \$RRO_SQL_PASSWORD") as raised:
        open_benchmark("intercode-sql", {"engine": "mysql://ann:secret@host"})
    assert "secret" not in str(raised.value)


def test_names_in_lower_case_but_no_text():
    sql = """SELECT T1.Name, 'It''s "A"', "B\\"C" FROM `Tab` AS t1 -- D's\nWHERE X = 'unclosed Y"""
    assert (
        in_lower_case(sql)
        == """select t1.name, 'It''s "A"', "B\\"C" from `tab` as t1 -- d's\nWHERE X = 'unclosed y"""
    )


def test_no_server():
    with pytest.raises(RroError, match=r"cannot connect to mysql://ann@127\.0\.0\.1:1:"):
        ServerEngine("mysql://ann:secret@127.0.0.1:1")


# --- a server

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("sql"))


@pytest.fixture(scope="module")
def url(admin, folder):
    """The URL of an account that may only read the loaded databases."""
    assert load_dump(admin, folder / "ic_spider_dbs.sql") == 3
    load_dump(admin, folder / "ic_spider_dbs.sql")  # again: the same
    with connect(parse_url(admin)).cursor() as cursor:
        for statement in (
            "CREATE USER reader@'%' IDENTIFIED BY 'pw'",
            "GRANT SELECT ON *.* TO reader@'%'",
        ):
            cursor.execute(statement)
    return admin.replace("root@", "reader:pw@")


@pytest.fixture(scope="module")
def server(url):
    engine = ServerEngine(url, seconds=1.0, rows=1000)
    yield engine
    engine.close()


@slow
def test_both_engines_answer_alike(server, folder):
    embedded = SqliteEngine(folder / "ic_spider_dbs.sql", folder / "cache")
    for sql in (
        "SELECT * FROM customer ORDER BY id",
        "SELECT avg(price), sum(price), max(bought), count(*) FROM purchase",
        "SELECT name FROM customer WHERE name = 'anna'",
        "SELECT c.name, sum(p.price) FROM customer c JOIN purchase p ON c.id = p.customer_id "
        "GROUP BY c.id ORDER BY c.id",
        "SELECT 7/2, 0.1 + 0.2, '5' + 1, NULL, date('2020-01-01'), concat('a', 1)",
        "SHOW TABLES",
        "SELECT database()",
        "SELECT * FROM nothing",
        "DELETE FROM customer",
        "USE zoo",
        "",
    ):
        one, other = embedded.execute("shop", sql), server.execute("shop", sql)
        assert (one.database, one.text) == (other.database, other.text), sql


@slow
def test_an_account_that_may_write_is_refused(admin):
    with pytest.raises(UsageError, match="may write: use one with SELECT alone"):
        ServerEngine(admin)
    engine = ServerEngine(admin, allow_writer=True)
    for sql in (
        "DELETE FROM customer",
        "/*!DELETE FROM customer*/",
        "/* x */ DROP TABLE customer",
        "# y\nDROP TABLE customer",
    ):
        assert (
            engine.execute("shop", sql).error
            == "Cannot execute statement in a READ ONLY transaction."
        ), sql
    for sql in (
        "SELECT 1; DELETE FROM customer",
        "SET SESSION TRANSACTION READ WRITE",
        "WITH c AS (SELECT 1) DELETE FROM customer",
    ):
        assert engine.execute("shop", sql).error, sql
    assert engine.execute("shop", "SELECT count(*) FROM customer").texts == ("(5,)",)
    engine.close()


@slow
def test_limits(server):
    interrupted = "Query execution was interrupted, maximum statement execution time exceeded"
    assert server.execute("shop", "SELECT sleep(30)").error == (
        "execute command denied to user ''@'%' for routine 'sleep'"
    )
    product = ", ".join(f"purchase p{n}" for n in range(12))
    assert server.execute("shop", f"SELECT count(*) FROM {product}").error == interrupted
    assert (
        server.execute("shop", f"SELECT * FROM {product}").error
        == "Result set exceeds the limit of 1000 rows"
    )
    assert server.execute("shop", "SELECT 1").texts == ("(1,)",)


@slow
def test_sessions_do_not_leak(server):
    assert "not available" in server.execute("shop", "SELECT @secret := 42").error
    assert server.execute("shop", "USE zoo").database == "zoo"
    assert server.execute("shop", "SELECT count(*) FROM customer").texts == ("(5,)",)


@slow
def test_episodes_at_once(admin, url, folder):
    """More episodes than connections, each in its own database."""
    engine = ServerEngine(url)

    def episode(number):
        database = "shop" if number % 2 else engine.execute("shop", "USE zoo").database
        return engine.execute(database, f"SELECT database(), {number}").rows[0]

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(episode, range(200)))
    assert answers == [("shop" if number % 2 else "zoo", number) for number in range(200)]
    with connect(parse_url(admin)).cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.processlist WHERE user = 'reader'")
        ((connections,),) = cursor.fetchall()
    assert 1 <= connections <= 8 + 1  # those of this engine, and one of the fixture's
    engine.close()


@slow
def test_an_episode_on_the_server(url, folder, monkeypatch):
    monkeypatch.setenv("RRO_SQL_PASSWORD", "pw")
    benchmark = open_intercode_sql(IntercodeSqlOptions(data=folder, engine=url.replace(":pw", "")))
    assert "pw" not in str(benchmark.provenance())
    environment = benchmark.make()
    assert environment.blocking
    environment.reset(benchmark.tasks("test")[0])
    environment.step(Message("assistant", "Action: ```sql\nSELECT count(*) FROM customer\n```"))
    assert environment.step(Message("assistant", "Action: submit")).reward == 1.0
    benchmark.engine.close()


@slow
def test_a_lost_connection_is_replaced(admin, url):
    engine = ServerEngine(url)
    engine.execute("shop", "SELECT 1")
    with connect(parse_url(admin)).cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'reader'")
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")
    assert engine.execute("shop", "SELECT 2").texts == ("(2,)",)
    engine.close()


@slow
def test_the_readers_time_out_is_the_agents_fault(url):
    """The server does not look at its clock within LOCATE."""
    engine = ServerEngine(url, seconds=0.5)
    sql = "SELECT locate(concat(repeat('a', 4000000), 'b'), repeat('a', 8000000))"
    assert engine.execute("shop", sql).error == INTERRUPTED
    assert engine.execute("shop", "SELECT 2").texts == ("(2,)",)
    engine.close()


@slow
def test_loading_what_is_no_dump(admin, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_dump(admin, tmp_path / "absent.sql")


@slow
def test_recorded_statements_on_both(shared, admin, tmp_path, capsys):
    """MariaDB is not MySQL: its planner and its error texts differ, and so do some rewards."""
    data = shared / "data" / "intercode-sql"
    load_dump(admin, data / "ic_spider_dbs.sql")
    statements = shared / "conformance" / "intercode-sql" / "mysql_statements.jsonl.gz"
    run_verify(data, statements, engine=admin.replace("root@", "root:@"))
    found = Counter({key: int(value) for key, value in _counts(capsys).items()})
    assert found["statements"] == 11668
    assert found["reward_equal"] > 0.97 * found["statements"]
    assert found["nonzero_equal"] > 0.8 * found["nonzero"]


def _counts(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])
