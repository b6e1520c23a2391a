"""The built databases: kept, whole or absent, and in MySQL's order."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from sql_toys import DUMP, write_dump

from rro.errors import DataError
from rro.intercode_sql.embedded.store import open_store


@pytest.fixture
def dump(tmp_path):
    return write_dump(tmp_path)


def rows(connection, sql):
    return connection.execute(sql).fetchall()


def test_the_second_opening_uses_the_file_of_the_first(dump, tmp_path):
    _, first = open_store(dump, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    _, second = open_store(dump, tmp_path / "cache")
    assert file.stat().st_mtime_ns == written
    assert rows(first, 'SELECT * FROM "shop.purchase"') == rows(
        second, 'SELECT * FROM "shop.purchase"'
    )


def test_another_dump_has_another_file(dump, tmp_path):
    open_store(dump, tmp_path / "cache")
    dump.write_text(DUMP.replace("'Basel'", "'Biel'"), encoding="utf-8")
    _, connection = open_store(dump, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert rows(connection, 'SELECT City FROM "shop.customer" WHERE ID = 2') == [("Biel",)]


def test_it_cannot_be_written(dump, tmp_path):
    _, connection = open_store(dump, tmp_path / "cache")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute('DELETE FROM "shop.customer"')


def test_a_place_that_cannot_be_written_costs_only_time(dump, tmp_path):
    (tmp_path / "file").write_text("in the way")
    _, connection = open_store(dump, tmp_path / "file" / "cache")
    assert rows(connection, 'SELECT count(*) FROM "shop.customer"') == [(5,)]


def test_a_damaged_file_costs_only_time(dump, tmp_path):
    open_store(dump, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"not a database")
    _, connection = open_store(dump, tmp_path / "cache")
    assert rows(connection, 'SELECT count(*) FROM "shop.customer"') == [(5,)]


def test_many_build_at_once(dump, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_store(dump, tmp_path / "cache"), range(8)))
    assert [rows(connection, 'SELECT count(*) FROM "zoo.animal"') for _, connection in opened] == [
        [(3,)]
    ] * 8
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".sqlite"]


def test_rows_are_numbered_by_every_index(dump, tmp_path):
    """The dump lists animals by another order than that of the primary key, as mysqldump does."""
    _, connection = open_store(dump, tmp_path / "cache")
    assert rows(connection, 'SELECT name FROM "zoo.animal" ORDER BY "#"') == [
        ("ant",),
        ("cat",),
        ("owl",),
    ]
    assert rows(connection, 'SELECT name FROM "zoo.animal" ORDER BY "#3"') == [
        ("ant",),
        ("owl",),
        ("cat",),
    ]  # by keeper


def test_texts_have_their_key_beside_them(dump, tmp_path):
    _, connection = open_store(dump, tmp_path / "cache")
    assert rows(connection, 'SELECT "City", "City#" FROM "shop.customer" WHERE ID = 4') == [
        ("Genève ", "GENEVE")
    ]


def test_what_cannot_be_read_says_so(tmp_path):
    with pytest.raises(DataError, match=r"absent\.sql cannot be read"):
        open_store(tmp_path / "absent.sql", tmp_path)
    (tmp_path / "bad.sql").write_text(DUMP.replace("(1,'Anna',", "(1,"), encoding="utf-8")
    with pytest.raises(DataError, match=r"rows of shop\.customer cannot be stored"):
        open_store(tmp_path / "bad.sql", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
