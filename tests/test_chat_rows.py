"""Rows that a user gives: everything in them is carried out, or refused with file, line and key."""

import codecs
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.chat_rows import conversation
from rro.codec import from_plain, pack_message, to_plain, unpack_message
from rro.episodes.experts import read_conversations, write_conversations
from rro.errors import DataError
from rro.jsonl import read_rows, strict_json
from rro.tool_calls import tools_of
from rro.types import Message, Source, Step, StopReason, Trajectory

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
ROW = {"id": "t", "messages": [USER, ANSWER]}


def read(tmp_path, content):
    file = tmp_path / "experts.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_conversations(file)


def answer(**changes):
    return {**ROW, "messages": [USER, {**ANSWER, **changes}]}


# carried out


@pytest.mark.parametrize(
    "separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"]
)
def test_line_separators_inside_a_text_are_text(tmp_path, separator):
    text = f"one{separator}two"
    rows = [answer(content=text), ROW]
    raw = "".join(json.dumps(row, ensure_ascii=ord(separator) < 32) + "\n" for row in rows)
    (_, first), (_, second) = read(tmp_path, raw)
    assert first[-1].content == text
    assert second[-1].content == "a"


@pytest.mark.parametrize(
    "form",
    [
        lambda text: codecs.BOM_UTF8 + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\n \t\n\r\n" + text.replace(b"\n", b"\n\n"),
        lambda text: text.rstrip(b"\n"),
        gzip.compress,
        lambda text: gzip.compress(text[:20]) + gzip.compress(text[20:]),
        lambda text: codecs.BOM_UTF8 + b"[" + text.strip().replace(b"\n", b",\n") + b"]\n",
    ],
    ids=["bom", "crlf", "blank-lines", "no-last-newline", "gzip", "gzip-members", "array"],
)
def test_ways_to_write_the_same_file(tmp_path, form):
    plain = "".join(json.dumps(row) + "\n" for row in (answer(content="größer"), ROW)).encode()
    assert read(tmp_path, form(plain)) == read(tmp_path, plain)


@pytest.mark.parametrize("key", ["loss", "train", "weight"])
@pytest.mark.parametrize("value", [False, 0, 0.0])
def test_what_is_not_to_be_trained_carries_no_loss(tmp_path, key, value):
    more = [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b", key: True}]
    row = {"messages": [USER, {**ANSWER, key: value}, *more]}
    [(_, found)] = read(tmp_path, json.dumps(row))
    assert [message.source for message in found if message.role == "assistant"] == [
        Source.ENVIRONMENT,
        Source.EXPERT,
    ]
    [(_, found)] = read(tmp_path, json.dumps({**ROW, key: value}))
    assert found[1].source is Source.ENVIRONMENT


def test_a_rows_system_text_is_the_first_message(tmp_path):
    row = {"system": "rules", "conversations": [{"from": "human", "value": "q"}]}
    [(name, found)] = read(tmp_path, json.dumps(row))
    assert (name, found) == ("1", (Message("system", "rules"), Message("user", "q")))


def test_parts_of_text_are_joined(tmp_path):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    [(_, found)] = read(tmp_path, json.dumps(answer(content=parts)))
    assert found[1].content == "one two"


def test_empty_columns_and_notes_change_nothing(tmp_path):
    notes = {"tools": None, "system": "", "reward": 1.0, "metadata": {"any": 1}, "id": None}
    empty = {"tool_calls": [], "name": None, "loss": None, "weight": 1}
    row = {**answer(**empty), **notes}
    assert read(tmp_path, json.dumps(row)) == [("1", read(tmp_path, json.dumps(ROW))[0][1])]


# refused


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (answer(content=None), "messages, message 2: its content is null"),
        (answer(content=5), "its content is int"),
        (answer(content={"text": "a"}), "its content is dict"),
        (answer(content=[]), "its content is list"),
        (answer(content=["a"]), "part 1"),
        (answer(content=[{"type": "image_url", "image_url": "x"}]), "part 1"),
        (answer(content=[{"type": "text", "text": "a", "cache": 1}]), "part 1"),
        (answer(content=[{"type": "text", "text": None}]), "part 1"),
        (answer(content="half \ud800"), "half a character"),
        (answer(tool_calls=[{"id": 1}]), "'tool_calls'"),
        (answer(name="bob"), "'name'"),
        (answer(audio="hm"), "'audio'"),
        (answer(role="tool"), "is the result of no tool call"),
        (answer(role="Assistant"), "the role 'Assistant' is unknown"),
        (answer(role=None), "the role None is unknown"),
        (answer(role=["user"]), "is unknown"),
        (answer(value="b"), "both 'content' and 'value'"),
        (answer(weight=0.5), "'weight' is 0.5"),
        (answer(loss="no"), "'loss' is 'no'"),
        (answer(loss=True, weight=0), "loss and weight contradict"),
        ({**ROW, "messages": [{**USER, "loss": True}, ANSWER]}, "loss is on assistant messages"),
        ({**ROW, "messages": [{"content": "q"}, ANSWER]}, "a turn needs role and content"),
        ({**ROW, "messages": ["q", ANSWER]}, "message 1: must be an object"),
        ({**ROW, "messages": []}, "neither 'messages' nor 'conversations'"),
        ({**ROW, "messages": {"role": "user"}}, "must be a list"),
        ({**ROW, "messages": [USER, ANSWER] * 2}, "stands in it 2 times"),
        ({**ROW, "messages": [USER, ANSWER] * 3}, "stands in it 3 times"),
        ({**ROW, "messages": [USER, ANSWER, ANSWER]}, "message 3: is the one before it"),
        ({**ROW, "messages": [USER, ANSWER, {"role": "system", "content": "s"}]}, "the first"),
        ({**ROW, "conversations": [USER]}, "both 'messages' and 'conversations'"),
        ({**ROW, "system": "s", "messages": [{"role": "system", "content": "r"}]}, "both 'system'"),
        ({**ROW, "system": ["s"]}, "'system', part 1"),
        ({**ROW, "tools": [{"name": "search"}]}, "'tools'"),
        ({**ROW, "labels": [1]}, "'labels'"),
        ({**ROW, "sources": ["expert"]}, "sources must be"),
        ({**ROW, "sources": ["expert", "nobody"]}, "sources must be"),
        ({**ROW, "sources": [["expert"], {}]}, "sources must be"),
        ({**ROW, "sources": ["policy", "policy"]}, "message 1: a user's cannot be policy's"),
        ({**ROW, "id": True}, "'id' must be"),
        ({**ROW, "id": ["t"]}, "'id' must be"),
        (["q"], "must be an object"),
        ("q", "must be an object"),
        (7, "must be an object"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_its_place(tmp_path, row, words):
    with pytest.raises(DataError) as error:
        read(tmp_path, json.dumps(ROW) + "\n\n" + json.dumps(row) + "\n")
    assert f"{tmp_path / 'experts.jsonl'}, line 3: " in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "t", "id": "u", "messages": []}', "the key 'id' stands twice"),
        (b'{"messages": [{"role": "user", "role": "user", "content": "q"}]}', "'role' stands"),
        (b'{"reward": NaN}', "NaN"),
        (b'{"reward": -Infinity}', "Infinity"),
        (b'{"reward": 1e999}', "too large"),
        (b'{"messages": "\xe2\x82"}', "not UTF-8"),
        (codecs.BOM_UTF8 + b"{}", "not JSON"),
        ('{"messages": []}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": "one\ttwo"}', "not JSON"),
        (b'{"a": 1} {"a": 2}', "not JSON"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_its_line(tmp_path, line, words):
    with pytest.raises(DataError) as error:
        read(tmp_path, json.dumps(ROW).encode() + b"\n" + line + b"\n")
    assert str(error.value).startswith(f"{tmp_path / 'experts.jsonl'}, line 2: not JSON: ")
    assert words in str(error.value)


def test_a_gzip_that_was_cut_off_is_named(tmp_path):
    with pytest.raises(DataError, match=r"experts\.jsonl cannot be read"):
        read(tmp_path, gzip.compress(json.dumps(ROW).encode() * 100)[:-20])


# laws


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            Trajectory,
            task=TEXT,
            opening=st.lists(
                st.builds(Message, st.sampled_from(["system", "user"]), TEXT)
                | st.builds(Message, st.just("assistant"), TEXT, st.sampled_from(Source)),
                min_size=1,
                max_size=3,
            ).map(tuple),
            steps=st.lists(
                st.builds(
                    Step,
                    st.builds(Message, st.just("assistant"), TEXT, st.sampled_from(Source)),
                    TEXT,
                    st.floats(0, 1),
                    st.booleans(),
                ),
                max_size=3,
            ).map(tuple),
            reward=st.none() | st.floats(-1, 1),
            stop=st.just(StopReason.TERMINAL),
            policy=TEXT,
            seed=st.integers(0, 9),
        ).filter(lambda episode: episode.messages()),
        min_size=1,
        max_size=4,
    )
)
def test_what_rro_writes_is_read_back_equal(tmp_path_factory, episodes):
    file = tmp_path_factory.mktemp("rows") / "experts.jsonl"
    write_conversations(episodes, file)
    assert read_conversations(file) == [(e.task, e.messages()) for e in episodes]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=4), st.booleans())
def test_strict_json_is_json(tmp_path_factory, rows, ascii_only):
    def plain(row):
        return json.dumps(row, ensure_ascii=True if not encodes(row) else ascii_only)

    assert [strict_json(plain(row)) for row in rows] == rows
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_bytes("".join(plain(row) + "\n" for row in rows).encode())
    assert [row for _, row in read_rows(file)] == rows


def encodes(row):
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


CALL = {"type": "function", "function": {"name": "find", "arguments": {"text": "é"}}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def tool_row(*turns, **row):
    return {"messages": [{"role": "user", "content": "x"}, *turns], **row}


def called(*calls, **turn):
    return {"role": "assistant", "tool_calls": list(calls), **turn}


def test_tool_calls_and_their_results_are_read():
    row = tool_row(
        called(CALL, {"name": "find", "arguments": '{"text": "b"}', "id": "call_2"}, content=None),
        {"role": "tool", "tool_call_id": "call_2", "content": "two"},
        {"role": "tool", "name": "find", "content": "one"},
        {"role": "assistant", "content": "Done."},
        tools=[TOOL],
    )
    question, both, two, one, done = conversation(row, "here", Source.EXPERT)
    assert tools_of([question]) == [TOOL]
    assert [call.values() for call in both.tool_calls] == [{"text": "é"}, {"text": "b"}]
    assert both.content == ""
    assert both.source is Source.EXPERT
    assert [two.tool_call_id, one.tool_call_id] == ["call_2", both.tool_calls[0].id]
    assert (one.role, one.name, one.content) == ("tool", "find", "one")
    assert done.content == "Done."
    again = {"messages": [m.chat() for m in (question, both, two, one, done)]}
    assert conversation({**again, "tools": json.dumps([TOOL])}, "", Source.EXPERT) == (
        question,
        both,
        two,
        one,
        done,
    )


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([called({**CALL, "function": {"name": "a b"}})], "'tool_calls' must be"),
        ([called("find")], "'tool_calls' must be"),
        ([called({"name": "find", "arguments": "{"})], "arguments of find are not a JSON object"),
        ([called({"name": "find", "arguments": [1]})], "arguments of find are not a JSON object"),
        ([called(CALL), {"role": "tool", "content": None}], "its content is null"),
        (
            [called(CALL), *[{"role": "tool", "content": "a"}] * 2],
            "message 4: is the result of no tool call",
        ),
        ([{"role": "user", "content": "y", "tool_calls": [CALL]}], "'tool_calls'"),
        ([called(CALL, audio="x")], "'audio'"),
    ],
)
def test_tool_turns_that_say_too_much_or_too_little_are_refused(turns, reason):
    with pytest.raises(DataError, match=reason):
        conversation(tool_row(*turns), "here", Source.EXPERT)


@pytest.mark.parametrize("tools", ["{", '{"a": 1}', [{"name": "find"}], [TOOL, TOOL], [1]])
def test_tools_that_are_no_schemas_are_refused(tools):
    with pytest.raises(DataError, match="here: 'tools'"):
        conversation(tool_row(called(CALL), tools=tools), "here", Source.EXPERT)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_a_thought_is_kept_apart_and_written_back(key):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", key: "why"}]
    (_, said) = conversation({"messages": turns}, "row 1", Source.EXPERT)
    assert (said.content, said.thought) == ("a", "why")
    assert said.chat() == {"role": "assistant", "content": "a", "reasoning_content": "why"}
    assert from_plain(Message, to_plain(said)) == said
    assert unpack_message(pack_message(said)) == said
