"""Append-only records: complete or absent, once each, one writer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.errors import DataError, RroError, UsageError
from rro.runs.journal import Journal

KEYS = st.lists(st.text(max_size=8), unique=True, max_size=8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_records_come_back(path):
    with Journal(path) as journal:
        journal.append("a", "1", {"x": 1.5, "text": "\u2028 \ud800 \n"})
        journal.append("b", "1", {"x": None})
        assert journal.get("a", "1") == {
            "kind": "a",
            "key": "1",
            "x": 1.5,
            "text": "\u2028 \ud800 \n",
        }
        assert journal.get("a", "2") is None
        assert ("b", "1") in journal
        assert ("b", "2") not in journal
    with Journal(path, read_only=True) as journal:
        assert [record["x"] for record in journal.records("b")] == [None]


def test_records_by_prefix_in_the_order_written(path):
    with Journal(path) as journal:
        for key in ("1/b", "2/a", "1/a"):
            journal.append("task", key, {})
        assert [record["key"] for record in journal.records("task", "1/")] == ["1/b", "1/a"]


def test_the_same_key_twice_is_an_error(path):
    with Journal(path) as journal:
        journal.append("a", "1", {"x": 1})
        with pytest.raises(RroError, match="exists already"):
            journal.append("a", "1", {"x": 2})
    with Journal(path) as journal:
        assert journal.get("a", "1") == {"kind": "a", "key": "1", "x": 1}
        with pytest.raises(RroError, match="exists already"):
            journal.append("a", "1", {"x": 2})


@settings(max_examples=60)
@given(KEYS, st.floats(0, 1))
def test_cut_anywhere_the_complete_records_remain(tmp_path_factory, keys, where):
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    with Journal(path) as journal:
        for key in keys:
            journal.append("a", key, {"value": key * 3})
    whole = path.read_bytes()
    cut = whole[: round(where * len(whole))]
    path.write_bytes(cut)
    kept = keys[: max(cut.count(b"\n") - 1, 0)]
    with Journal(path) as journal:
        assert [record["key"] for record in journal.records("a")] == kept
        for key in keys[len(kept) :]:
            journal.append("a", key, {"value": key * 3})
    assert path.read_bytes() == whole


def test_one_writer_many_readers(path):
    with Journal(path) as journal:
        journal.append("a", "1", {})
        with pytest.raises(UsageError, match="another process is writing"):
            Journal(path)
        with Journal(path, read_only=True) as reader:
            assert ("a", "1") in reader
    Journal(path).close()


def test_a_reader_leaves_a_torn_tail_to_the_writer(path):
    with Journal(path) as journal:
        journal.append("a", "1", {})
    with path.open("ab") as file:
        file.write(b'{"kind": "a", "ke')
    torn = path.read_bytes()
    with Journal(path, read_only=True) as reader:
        assert len(list(reader.records("a"))) == 1
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    "text",
    [
        "precious notes",
        "precious\nnotes\n",
        "{}\n",
        '{"kind":"journal","key":"","schema":99}\n',
        '["kind"]\n',
    ],
)
def test_what_is_no_journal_is_refused_and_left_alone(path, text):
    path.write_text(text)
    with pytest.raises(DataError, match=r"journal\.jsonl"):
        Journal(path)
    assert path.read_text() == text


def test_a_journal_of_an_older_version_says_what_to_do(path):
    text = '{"kind":"journal","key":"","schema":1}\n{"kind":"task","key":"1/t","pairs":[]}\n'
    path.write_text(text)
    for read_only in (True, False):
        with pytest.raises(DataError, match=r"written by rro 0\.1 .*finish or read the run with"):
            Journal(path, read_only=read_only)
    assert path.read_text() == text


def test_damage_in_the_middle_names_the_line(path):
    with Journal(path) as journal:
        journal.append("a", "1", {})
        journal.append("a", "2", {})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-9] + b"\n" + lines[2])
    with pytest.raises(DataError, match="line 2: damaged"):
        Journal(path)


def test_a_reader_of_nothing(path):
    with pytest.raises(DataError, match="no journal there"):
        Journal(path, read_only=True)


def test_a_journal_that_was_lost_is_not_begun_anew(path):
    Journal(path).close()
    path.unlink()
    with pytest.raises(DataError, match="it was written once: restore it"):
        Journal(path)
    assert not path.exists()


def test_what_needs_a_journal_makes_none(path):
    with pytest.raises(DataError, match=r"no journal there$"):
        Journal(path, create=False)
    assert not path.exists()


def test_what_cannot_be_written_leaves_no_trace(path):
    with Journal(path) as journal:
        with pytest.raises(TypeError):
            journal.append("a", "1", {"x": object()})
        assert ("a", "1") not in journal
        journal.append("a", "1", {"x": 1})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["", "1"]


def test_a_closed_journal_writes_into_no_one_elses_file(path, tmp_path):
    journal = Journal(path)
    journal.close()
    with (tmp_path / "other").open("wb") as other:  # likely gets the same file number
        with pytest.raises((RroError, OSError)):
            journal.append("a", "1", {})
        assert other.tell() == 0
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"kind":"a","key":"x0"}', "a second a record with key 'x0'"),
        (b'{"kind":"a","key":"y","reward":NaN}', "NaN"),
        (b'{"kind":"a","key":"y","reward":-Infinity}', "Infinity"),
        (b'{"kind":"a","key":"y","reward":1e999}', "too large"),
        (b'{"kind":"a","key":"y","reward":1,"reward":2}', "'reward' stands twice"),
        (b'{"kind":"a","key":"y","text":"\xe2\x82"}', "not UTF-8"),
        (b'{"kind":"a"}', "damaged record"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_record_that_cannot_be_is_refused_with_its_line(path, line, words):
    with Journal(path) as journal:
        journal.append("a", "x0", {"number": 0})
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match="line 3: ") as error:
        Journal(path, read_only=True)
    assert words in str(error.value)


def test_a_journal_that_was_written_otherwise_is_read_as_well(path):
    lines = [
        '{"schema": 2, "kind": "journal", "key": ""}',
        r'{"x": 1, "key": "\u00e9/1", "kind": "a"}',
    ]
    path.write_text("\n".join([*lines, '{"kind": "a", "key": "é/2", "x": 2}', ""]))
    with Journal(path) as journal:
        assert list(journal.keys()) == [("a", "é/1"), ("a", "é/2")]
        assert [record["x"] for record in journal.records("a", "é/")] == [1, 2]
        assert list(journal.keys(1)) == [("a", "é/2")]
        with pytest.raises(RroError, match="exists already"):
            journal.append("a", "é/1", {})


def test_a_number_that_json_lacks_is_written_as_none(path):
    with Journal(path) as journal:
        journal.append("stage", "sft", {"metrics": {"grad_norm": float("nan"), "loss": [0.5]}})
    with Journal(path) as journal:
        assert journal.get("stage", "sft")["metrics"] == {"grad_norm": None, "loss": [0.5]}
