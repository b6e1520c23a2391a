"""Reading mysqldump's output: what is declared, and every value as it was."""

import pytest
from sql_toys import DUMP

from rro.errors import DataError
from rro.intercode_sql.embedded.store import Type, declared_type, open_store, read_dump


@pytest.fixture(scope="module")
def catalogue():
    return read_dump(DUMP, "dump")[0]


def test_databases_and_tables_are_in_lower_case_and_sorted(catalogue):
    assert {name: list(tables) for name, tables in catalogue.items()} == {
        "shop": ["customer", "empty_one", "purchase"],
        "zoo": ["animal"],
    }
    assert catalogue["shop"]["customer"].rows == 5


def test_columns_as_declared(catalogue):
    columns = catalogue["shop"]["purchase"].columns
    assert columns["price"].type == Type("decimal", 2)
    assert (columns["amount"].default, columns["amount"].null) == ("1", "NO")
    assert (columns["item"].default, columns["item"].declared) == ("", "varchar(20)")
    assert columns["purchase_id"].extra == "auto_increment"
    seen = catalogue["zoo"]["animal"].columns["seen"]
    assert (seen.default, seen.extra) == (
        "CURRENT_TIMESTAMP",
        "DEFAULT_GENERATED on update CURRENT_TIMESTAMP",
    )


def test_indexes(catalogue):
    animal = catalogue["zoo"]["animal"]
    assert animal.indexes == {"#": ("name", "keeper"), "#2": ("legs",), "#3": ("keeper",)}
    assert animal.unique == [("name", "keeper"), ("legs",)]
    assert catalogue["shop"]["empty_one"].indexes == {}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("int", Type("int", 0)),
        ("tinyint(1)", Type("int", 0)),
        ("decimal(19,4)", Type("decimal", 4)),
        ("decimal(5)", Type("decimal", 0)),
        ("float(10,2)", Type("float", 2)),
        ("float", Type("float")),
        ("double", Type("double")),
        ("varchar(255)", Type("text")),
        ("timestamp", Type("datetime")),
        ("enum('a','b')", Type("text")),
    ],
)
def test_declared_types(declared, expected):
    assert declared_type(declared) == expected


def test_values_with_quotes_escapes_and_nulls(tmp_path):
    dump = r"""USE `d`;
CREATE TABLE `t` (
  `a` text,
  `b` float DEFAULT NULL
) ENGINE=InnoDB;
INSERT INTO `t` VALUES ('it''s',1),('a\'b',0.1),('tab\there',-7),('(1,2),(3)',NULL);
INSERT INTO `t` VALUES (NULL,2),('NULL',2),('back\\slash',2);
INSERT INTO `t` VALUES ('é 😀',-1.5e3);
"""
    (tmp_path / "dump.sql").write_text(dump, encoding="utf-8")
    _, connection = open_store(tmp_path / "dump.sql", tmp_path)
    assert connection.execute('SELECT a, b FROM "d.t"').fetchall() == [
        ("it's", 1.0),
        ("a'b", 0.10000000149011612),
        ("tab\there", -7.0),
        ("(1,2),(3)", None),
        (None, 2.0),
        ("NULL", 2.0),
        ("back\\slash", 2.0),
        ("é 😀", -1500.0),
    ]


def test_what_is_no_dump_says_so():
    with pytest.raises(DataError, match="here: not a dump"):
        read_dump("hello", "here")
    with pytest.raises(DataError, match="rows for the table t"):
        read_dump("USE `d`;\nINSERT INTO `t` VALUES (1);", "here")
