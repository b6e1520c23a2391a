"""Reading mysqldump's output: what is declared, and every value as it was."""

import pytest
from sql_toys import DUMP

from rro.envs.intercode_sql.embedded.dump import read_rows, read_schema, stored
from rro.envs.intercode_sql.embedded.schema import Kind, Type, declared_type
from rro.errors import DataError


@pytest.fixture(scope="module")
def catalogue():
    return read_schema(DUMP, "dump")


def test_databases_and_tables_are_in_lower_case_and_sorted(catalogue):
    assert {name: list(tables) for name, tables in catalogue.databases.items()} == {
        "shop": ["customer", "empty_one", "purchase"],
        "zoo": ["animal"],
    }
    assert catalogue.table("SHOP", "Customer").rows == 5
    assert catalogue.table("shop", "cust") is None


def test_columns_as_declared(catalogue):
    columns = {column.name: column for column in catalogue.table("shop", "purchase").columns}
    assert columns["price"].type == Type(Kind.DECIMAL, 2)
    assert (columns["amount"].default, columns["amount"].nullable) == ("1", False)
    assert (columns["item"].default, columns["item"].declared) == ("", "varchar(20)")
    assert (columns["purchase_id"].key, columns["purchase_id"].extra) == ("PRI", "auto_increment")
    assert columns["customer_id"].key == "MUL"
    seen = catalogue.table("zoo", "animal").by_name["seen"]
    assert (seen.default, seen.extra) == ("CURRENT_TIMESTAMP", "DEFAULT_GENERATED on update CURRENT_TIMESTAMP")


def test_keys(catalogue):
    animal = catalogue.table("zoo", "animal")
    assert [(index.parts, index.unique, index.primary) for index in animal.indexes] == [
        (("name", "keeper"), True, True),
        (("legs",), True, False),
        (("keeper",), False, False),
    ]
    assert {column.name: column.key for column in animal.columns} == {
        "name": "PRI", "keeper": "PRI", "legs": "UNI", "seen": "",
    }  # fmt: skip
    assert catalogue.table("shop", "empty_one").primary is None


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("int", Type(Kind.INT)),
        ("int(11)", Type(Kind.INT)),
        ("tinyint(1)", Type(Kind.INT)),
        ("decimal(19,4)", Type(Kind.DECIMAL, 4)),
        ("decimal(5)", Type(Kind.DECIMAL, 0)),
        ("float(10,2)", Type(Kind.FLOAT, 2)),
        ("float", Type(Kind.FLOAT)),
        ("double", Type(Kind.DOUBLE)),
        ("varchar(255)", Type(Kind.TEXT)),
        ("timestamp", Type(Kind.DATETIME)),
        ("enum('a','b')", Type(Kind.TEXT)),
        ("blob", Type(Kind.BYTES)),
    ],
)
def test_declared_types(declared, expected):
    assert declared_type(declared) == expected


def test_values_with_quotes_escapes_and_nulls():
    dump = r"""USE `d`;
CREATE TABLE `t` (
  `a` text
) ENGINE=InnoDB;
INSERT INTO `t` VALUES ('it''s'),('a\'b'),('tab\there'),('(1,2),(3)'),(NULL),('NULL'),('back\\slash'),('é 😀'),(-1.5e3),(-7);
"""
    ((database, table, rows),) = read_rows(dump)
    assert (database, table) == ("d", "t")
    assert [row[0] for row in rows] == [
        "it's", "a'b", "tab\there", "(1,2),(3)", None, "NULL", "back\\slash", "é 😀", -1500.0, -7,
    ]  # fmt: skip


def test_stored_values():
    assert stored(0.1, Type(Kind.FLOAT)) == 0.10000000149011612
    assert stored("2001-2-3", Type(Kind.TEXT)) == "2001-2-3"
    assert stored("2001-02-03 04:05:06", Type(Kind.DATETIME)) == "2001-02-03 04:05:06"
    assert stored("0000-00-00", Type(Kind.DATE)) == "0000-00-00"
    assert stored(None, Type(Kind.INT)) is None


def test_what_is_no_dump_says_so():
    with pytest.raises(DataError, match="here: not a dump"):
        read_schema("hello", "here")
    with pytest.raises(DataError, match="rows for the table t"):
        read_schema("USE `d`;\nINSERT INTO `t` VALUES (1);", "here")
