"""Rows with tool calls in files: TRL's form, in JSON lines and Parquet, and read back."""

import json
from dataclasses import replace

import pytest
from datasets import Dataset
from tool_toys import FAMILIES, TOOLS, asks, calls, result

from rro.episodes.experts import read_conversations, write_conversations
from rro.learning.exports import export
from rro.learning.line_rows import session_lines, trace_features, trace_row
from rro.learning.lines_of_play import Line
from rro.learning.pairs import read_pairs, to_row, write_pairs
from rro.learning.row_files import write_rows
from rro.learning.rows import preference_rows, sft_rows
from rro.learning.weighted_rows import weighted_rows
from rro.models.chat import ChatFormat
from rro.types import (
    Message,
    PreferencePair,
    ProcessReward,
    Source,
    Step,
    StepLabel,
    StopReason,
    Trajectory,
    Usage,
    WeightedEpisode,
)

GOOD = calls(("run_sql", {"query": "SELECT 'é<|im_end|>'", "limit": 3}), text="I look.")
BAD = calls(("run_sql", "{oops"), ("run_sql", {"query": "x"}), source=Source.POLICY)
HISTORY = (asks(), GOOD, result(GOOD, "3 rows"))


def pair():
    return PreferencePair(
        prompt=HISTORY,
        chosen=(GOOD,),
        rejected=(BAD,),
        task="t",
        step=2,
        chosen_reward=ProcessReward((1.0,), "run/sft"),
        rejected_reward=ProcessReward((0.0,), "run/sft"),
        strategy="rro",
    )


def test_pairs_with_tools_are_trls_rows_and_are_read_back(tmp_path):
    file = tmp_path / "pairs.jsonl"
    assert write_pairs([to_row(pair())], file) == 1
    row = json.loads(file.read_text())
    assert row["tools"] == json.loads(TOOLS)
    assert row["prompt"][2] == {
        "role": "tool",
        "content": "3 rows",
        "name": "run_sql",
        "tool_call_id": GOOD.tool_calls[0].id,
    }
    (called,) = row["chosen"][0]["tool_calls"]
    assert called["function"]["arguments"] == {"query": "SELECT 'é<|im_end|>'", "limit": 3}
    again = next(read_pairs(file))
    assert again.prompt == pair().prompt
    assert again.chosen[0].tool_calls[0].values() == GOOD.tool_calls[0].values()
    assert again.rejected[0].tool_calls[0].values() == {"invalid": "{oops"}
    table = Dataset.from_parquet(str(file.with_suffix(".parquet")))
    assert table[0]["chosen"] == row["chosen"]
    assert table[0]["tools"] == row["tools"]


def test_a_chat_template_takes_the_rows_as_they_are(tmp_path):
    write_pairs([to_row(pair())], tmp_path / "pairs.jsonl")
    row = Dataset.from_parquet(str(tmp_path / "pairs.parquet"))[0]
    text = FAMILIES["qwen2.5"].apply_chat_template(
        row["prompt"], tools=row["tools"], tokenize=False, add_generation_prompt=True
    )
    ours = ChatFormat(FAMILIES["qwen2.5"]).encode(HISTORY, True).ids
    assert FAMILIES["qwen2.5"].decode(ours) == text


ROWS = {
    "conversations": HISTORY,
    "labels": StepLabel(HISTORY, GOOD, "t", 2, pair().chosen_reward, None, True),
    "advantages": WeightedEpisode("t", (*HISTORY, GOOD), (None, 1.0, None, -1.0), 1.0, True),
}


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_of_rows_has_the_tools(tmp_path, kind):
    file = tmp_path / f"{kind}.jsonl"
    export(kind, [ROWS[kind], ROWS[kind]], file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows[0]["tools"] == json.loads(TOOLS)
    table = Dataset.from_parquet(str(file.with_suffix(".parquet")))
    assert table[1]["tools"] == rows[1]["tools"]
    key = "prompt" if kind == "labels" else "messages"
    assert table[0][key] == rows[0][key]


def test_a_thought_is_in_every_file_and_read_back(tmp_path):
    thinks = Message("assistant", "y", Source.EXPERT, thought="why")
    export("conversations", [(Message("user", "x"), thinks)], tmp_path / "rows.jsonl")
    table = Dataset.from_parquet(str(tmp_path / "rows.parquet"))
    said = {"role": "assistant", "content": "y", "reasoning_content": "why"}
    assert table[0]["messages"][1] == said
    file = tmp_path / "pairs.jsonl"
    given = replace(pair(), prompt=(Message("user", "x"),), chosen=(thinks,))
    given = replace(given, rejected=(replace(thinks, content="z", thought=""),))
    write_pairs([to_row(given)], file)
    again = next(read_pairs(file))
    assert (again.chosen, again.rejected) == (given.chosen, given.rejected)
    assert json.loads(file.read_text())["chosen"] == [said]


def test_a_trace_and_a_session_have_thoughts_calls_and_results(tmp_path):
    thinks = replace(GOOD, thought="why")
    messages = (asks(), thinks, result(GOOD, "3 rows"), Message("assistant", "y", thought="so"))
    nothing = (None,) * len(messages)
    line = Line(
        "t", "rollout", "0", 0, messages, 1, nothing, 1.0, StopReason.TERMINAL, "run/sft",
        committed=True, rose=True, usage=Usage(),
    )  # fmt: skip
    run = {"strategy": "rro", "iteration": 1, "success_reward": 1.0}
    file = tmp_path / "traces.jsonl"
    write_rows([trace_row(line, run)], file, trace_features)
    (row,) = Dataset.from_parquet(str(file.with_suffix(".parquet")))
    assert row["messages"] == json.loads(file.read_text())["messages"]
    _, called, answered, last = row["messages"]
    assert (called["reasoning_content"], last["reasoning_content"]) == ("why", "so")
    assert called["tool_calls"][0]["function"]["arguments"] == GOOD.tool_calls[0].arguments
    assert answered["tool_call_id"] == called["tool_calls"][0]["id"]
    _, _, *said = map(json.loads, session_lines(line, run))
    assert [one["message"].get("reasoningContent") for one in said] == ["why", None, "so"]


def test_rows_without_tools_have_the_columns_of_before(tmp_path):
    file = tmp_path / "rows.jsonl"
    export("conversations", [(Message("user", "x"), Message("assistant", "y"))], file)
    assert set(json.loads(file.read_text())) == {"messages", "sources"}
    table = Dataset.from_parquet(str(file.with_suffix(".parquet")))
    assert list(table[0]["messages"][0]) == ["role", "content"]


def test_experts_episodes_with_tools_are_read_back(tmp_path):
    steps = (Step(GOOD, "3 rows", 0.0, False), Step(GOOD, "end", 1.0, True))
    episode = Trajectory("t", (asks(),), steps, 1.0, StopReason.TERMINAL, "expert", 1)
    write_conversations([episode], tmp_path / "experts.jsonl")
    ((name, conversation),) = read_conversations(tmp_path / "experts.jsonl")
    assert (name, conversation) == ("t", episode.messages())


def test_loss_is_on_calls_not_on_results_or_tools():
    tokenizer = FAMILIES["qwen2.5"]
    chat = ChatFormat(tokenizer)

    def decoded(ids):
        return tokenizer.decode([id_ for id_ in ids if id_ != -100])

    row = sft_rows(chat, [(*HISTORY, GOOD)], 5000).dataset[0]
    trained = decoded(row["labels"])
    assert trained.count("I look.") == 2
    assert trained.count("</tool_call><|im_end|>") == 2
    assert "3 rows" not in trained
    assert "description" not in trained

    preference = preference_rows(chat, [pair()], 5000).dataset[0]
    assert decoded(preference["prompt_ids"]).endswith("<|im_start|>assistant\n")
    assert decoded(preference["rejected_ids"]).count("<tool_call>") == 2

    weighted = weighted_rows(chat, [ROWS["advantages"]], 5000).rows[0]
    assert len(weighted.targets) == sum(row["labels"][i] != -100 for i in range(len(row["labels"])))
    assert weighted.positive.sum() == -weighted.negative.sum() > 0
