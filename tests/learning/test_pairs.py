"""Rows of pairs: there and back, on disk, as `datasets` and TRL take them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.errors import DataError
from rro.learning.pairs import from_row, read_pairs, to_row, write_pairs
from rro.types import Message, PreferencePair, ProcessReward, Source

TEXT = st.text(max_size=20)
REWARD = st.builds(
    ProcessReward,
    st.lists(st.floats(-1, 1), min_size=1, max_size=5).map(tuple),
    TEXT,
    st.booleans(),
)
TOKENS = st.none() | st.lists(st.integers(0, 2**31), max_size=4).map(tuple)
ANSWER = st.builds(Message, st.just("assistant"), TEXT, st.sampled_from(Source), TOKENS)
QUESTION = st.builds(
    Message, st.sampled_from(["system", "user"]), TEXT, st.just(Source.ENVIRONMENT)
)
SIDE = st.lists(ANSWER, min_size=1, max_size=3).map(tuple)
PAIR = st.builds(
    PreferencePair,
    st.lists(QUESTION | ANSWER, min_size=1, max_size=4).map(tuple),
    SIDE,
    SIDE,
    TEXT,
    st.integers(1, 30),
    REWARD,
    REWARD,
    TEXT,
    st.sampled_from(["step", "continuation", "trajectory"]),
    st.integers(0, 6),
    st.none() | st.floats(0.5, 1),
).filter(lambda pair: not same(pair))


def same(pair):
    """Whether the sides have one text, or one sequence of sampled tokens."""
    sides = [[message.chat() for message in side] for side in (pair.chosen, pair.rejected)]
    ids = [[message.token_ids for message in side] for side in (pair.chosen, pair.rejected)]
    return sides[0] == sides[1] or (ids[0] == ids[1] and None not in ids[0])


def pair(text="x", tokens=(1, 2)):
    prompt = (Message("user", text),)
    chosen = Message("assistant", "good", Source.POLICY, tokens)
    rejected = Message("assistant", "bad", Source.POLICY, tokens and (*tokens, 9))
    estimates = ProcessReward((1.0, 0.5), "sft"), ProcessReward((0.0,), "sft", exact=True)
    return PreferencePair(prompt, (chosen,), (rejected,), "t", 1, *estimates, "rro")


@given(PAIR)
def test_a_row_is_its_pair(pair):
    row = to_row(pair)
    assert from_row(row) == pair
    assert from_row(json.loads(json.dumps(row))) == pair


def test_a_row_is_what_trl_takes_and_says_the_rest_in_words():
    row = to_row(pair())
    assert row["prompt"] == [{"role": "user", "content": "x"}]
    assert row["chosen"] == [{"role": "assistant", "content": "good"}]
    assert row["rejected"] == [{"role": "assistant", "content": "bad"}]
    assert (
        row["chosen_reward"],
        row["chosen_n"],
        row["chosen_exact"],
        row["chosen_pricing_policy"],
    ) == (
        0.75,
        2,
        False,
        "sft",
    )
    assert (row["rejected_reward"], row["rejected_n"], row["rejected_exact"]) == (0.0, 1, True)
    assert (row["chosen_token_ids"], row["prompt_token_ids"]) == ([[1, 2]], [None])
    assert row["chosen_sources"] == ["policy"]


@settings(max_examples=15, deadline=None)
@given(st.lists(PAIR, max_size=4))
def test_files_hold_the_pairs(tmp_path_factory, pairs):
    lines = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    assert write_pairs(map(to_row, pairs), lines) == len(pairs)
    assert list(read_pairs(lines)) == pairs
    table = lines.with_suffix(".parquet")
    assert table.exists() == bool(pairs)
    if pairs:
        import pyarrow.parquet

        assert [from_row(row) for row in pyarrow.parquet.read_table(table).to_pylist()] == pairs
    assert {path.name for path in lines.parent.iterdir()} <= {"pairs.jsonl", "pairs.parquet"}


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_datasets_loads_both_files(tmp_path, kind):
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    pairs = [pair("x", None), pair("<b>größer\u2028", (3,)), pair("z")]
    write_pairs(map(to_row, pairs), tmp_path / "pairs.jsonl")
    name = {"json": "pairs.jsonl", "parquet": "pairs.parquet"}[kind]
    rows = load_dataset(
        kind, data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [from_row(row) for row in rows] == pairs
    assert is_conversational(rows[0])
    assert {"prompt", "chosen", "rejected"} <= set(rows.column_names)


def test_no_pairs_leave_no_old_table_behind(tmp_path):
    lines = tmp_path / "pairs.jsonl"
    write_pairs([to_row(pair())], lines)
    write_pairs([], lines)
    assert list(read_pairs(lines)) == []
    assert not lines.with_suffix(".parquet").exists()


def test_a_plain_trl_row(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "y"}],
        "rejected": [{"role": "assistant", "content": "n"}],
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n\n")
    (found,) = read_pairs(tmp_path / "p.jsonl")
    assert found.prompt == (Message("user", "q", Source.ENVIRONMENT),)
    assert found.chosen == (Message("assistant", "y", Source.POLICY),)
    assert found.kind == "step"
    assert found.chosen_reward.mean > found.rejected_reward.mean


@pytest.mark.parametrize(
    "line",
    [
        "not json", "[]", "{}", '"text"', "\xff",
        '{"prompt": "text", "chosen": "a", "rejected": "b"}',
        '{"prompt": [{"role": "user"}], "chosen": [], "rejected": []}',
        '{"prompt": [{"role": "user", "content": null}], "chosen": [], "rejected": []}',
        json.dumps({**to_row(pair()), "chosen_sources": ["policy", "policy"]}),
        json.dumps({**to_row(pair()), "chosen_sources": ["nobody"]}),
        *(
            json.dumps({**to_row(pair()), **change})
            for change in (
                {"prompt": []},
                {"chosen": None},
                {"prompt": [{"role": "user", "content": "q"}] * 2, "prompt_sources": None},
                {"rejected": to_row(pair())["chosen"]},
                {"rejected_token_ids": [[1, 2]]},
                {"chosen_token_ids": [[1, -2]]},
                {"chosen_token_ids": [[1, True]]},
                {"chosen_token_ids": [1, 2]},
                {"chosen": [{"role": "user", "content": "y"}]},
                {"chosen": [{"role": "robot", "content": "y"}]},
                {"chosen": [{"role": "assistant", "content": 5}]},
                {"chosen": [{"role": "assistant", "content": "\ud800"}]},
                {"chosen_outcomes": [float("nan")]},
                {"chosen_outcomes": [1.0]},
                {"chosen_reward": 0.9},
                {"chosen_n": -2},
                {"step": -1},
                {"step": "first"},
                {"kind": "other"},
                {"credibility": 1.5},
                {"tools": [{"name": "search"}]},
                {"images": ["a.png"]},
                {"task": 7},
            )
        ),
        '{"chosen": 1, ' + json.dumps(to_row(pair()))[1:],
        json.dumps(to_row(pair()))[:-1] + ', "chosen_reward": 1e999}',
    ],
)  # fmt: skip
def test_what_is_no_row_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "p.jsonl"
    path.write_bytes((json.dumps(to_row(pair())) + "\n").encode() + line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=r"p\.jsonl, line 2: "):
        list(read_pairs(path))


def test_no_file_of_pairs(tmp_path):
    with pytest.raises(DataError, match="run rro explore first"):
        list(read_pairs(tmp_path / "none.jsonl"))
