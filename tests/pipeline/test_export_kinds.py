"""Everything that was explored, as files that `datasets` loads and TRL's trainers take, and as
repositories of the Hub."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
import torch
import yaml
from datasets import load_dataset
from door_runs import door_run
from fakes import TreeBenchmark
from report_toys import FOREST, make_rounds, make_run
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer

from rro.cli.main import main
from rro.errors import RroError, UsageError
from rro.learning.lines_of_play import lines_of
from rro.pipeline import stages
from rro.pipeline.cards import inline
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees
from rro.pipeline.export import export_as
from rro.pipeline.publishing import export_hub, push
from rro.pipeline.run import open_run
from rro.types import Usage


def made(folder, kind):
    """The rows of an export, as `datasets` loads its table."""
    with open_run(folder, TreeBenchmark(FOREST)) as run:
        file = export_as(run, kind)
    table = load_dataset(
        "parquet",
        data_files=str(file.with_suffix(".parquet")),
        split="train",
        cache_dir=str(file.parent / "cache"),
    )
    assert len(table) == len(file.read_text().splitlines()) > 0
    return table


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rro", FOREST)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A whole run of a real model."""
    folder = door_run(
        tmp_path_factory.mktemp("run") / "run",
        "exported",
        explore={"tasks": 12, "strategy": "rro", "rollouts": 2, "candidates": 3},
        dpo={"epochs": 1},
        evaluate={"tasks": 20, "greedy": False, "bootstrap": 100},
    )
    with open_run(folder) as run:
        stages.run_all(run)
    return folder


def test_every_drawn_message_is_in_one_line_and_all_costs_add_up(explored):
    with open_run(explored, TreeBenchmark(FOREST)) as run:
        trees = list(explored_trees(run, Choices(run), 1))
    for tree in trees:
        lines = list(lines_of(tree))
        assert len({line.id for line in lines}) == len(lines)
        own = [message for line in lines for message in line.messages[line.start :]]
        drawn = sum(message.role == "assistant" for message in own)
        spent = sum((line.usage for line in lines), tree.root.cost)
        assert drawn == spent.policy_calls == tree.usage().policy_calls
        assert spent == tree.usage() or isinstance(spent, Usage)


def test_labels_say_how_sure_they_are_and_where_they_come_from(explored):
    rows = made(explored, "labels")
    for row in rows:
        assert row["n"] == len(row["outcomes"])
        if row["exact"]:
            assert row["low"] == row["high"] == row["reward"]
        else:
            assert 0 <= row["low"] <= row["reward"] <= row["high"] <= 1
            assert row["low"] < row["high"]
    assert {row["committed"] for row in rows} == {True, False}
    assert {row["in_rollout"] for row in rows} == {True, False}


def test_pairs_are_those_of_the_whole_tree(explored):
    rows = made(explored, "pairs")
    assert len(rows) > len(explored.pairs(1).read_text().splitlines())
    assert {row["committed"] for row in rows} == {True, False}


def test_traces_are_the_chat_apis_messages_and_sessions_of_the_viewer(explored):
    rows = made(explored, "traces")
    assert rows[0]["messages"][0] == {"role": "system", "content": "Walk."}
    assert len(set(rows["id"])) == len(rows)
    sessions = sorted((explored.path / "exports" / "sessions").iterdir())
    assert len(sessions) == len(FOREST)
    header, *messages = (json.loads(line) for line in sessions[0].read_text().splitlines())
    assert (header["type"], header["harness"]) == ("session", "rro")
    assert header["id"]
    assert [m["message"]["role"] for m in messages[:3]] == ["system", "user", "assistant"]
    assert {m["type"] for m in messages} == {"message"}


def test_a_group_of_episodes_has_advantages(tmp_path):
    rows = made(make_rounds(tmp_path / "run", FOREST, count=2), "trajectories")
    assert {row["kind"] for row in rows} == {"rollout"}
    for row in rows:
        given = [value is not None for value in row["message_advantages"]]
        roles = [message["role"] == "assistant" for message in row["messages"]]
        assert sum(given) <= sum(roles)
    assert any(value for row in rows for value in row["message_advantages"] if value)


def test_trajectories_have_the_sampled_tokens(trained):
    with open_run(trained) as run:
        file = export_as(run, "trajectories")
        stage = run.journal.get("stage", "explore-1")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sum(sum(row["mask"]) for row in rows) == stage["usage"]["generated_tokens"]
    sampled = [row for row in rows if any(value is not None for value in row["advantages"])]
    assert sampled
    for row in rows:
        assert len(row["input_ids"]) == len(row["mask"]) == len(row["advantages"])
        outside = [v for v, m in zip(row["advantages"], row["mask"], strict=True) if not m]
        assert set(outside) <= {None}


def arguments(folder):
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def test_trls_dpo_trainer_takes_the_pairs(trained, tmp_path):
    with open_run(trained) as run:
        file = export_as(run, "pairs")
    checkpoint = str(trained.checkpoint("sft"))
    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path))
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(checkpoint),
        args=DPOConfig(**arguments(tmp_path / "dpo"), bf16=False),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
    )
    assert trainer.train().global_step == 1


def stepwise(trained, tmp_path):
    """The labels as text prompts, as docs/exports.md makes them; model and tokenizer."""
    with open_run(trained) as run:
        file = export_as(run, "labels")
    tokenizer = AutoTokenizer.from_pretrained(str(trained.checkpoint("sft")))
    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path))
    rows = rows.map(
        lambda row: {
            "prompt": tokenizer.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True
            )
        }
    ).select_columns(["prompt", "completions", "labels"])
    model = AutoModelForTokenClassification.from_pretrained(
        str(trained.checkpoint("sft")), num_labels=2
    )
    return rows, model, tokenizer


def test_a_process_reward_trainer_takes_the_labels(trained, tmp_path):
    """TRL had one until 1.13. This is what it does, with Transformers' own classes."""
    rows, model, tokenizer = stepwise(trained, tmp_path)

    def tokens(row):
        before = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        (step,) = (tokenizer(c, add_special_tokens=False)["input_ids"] for c in row["completions"])
        labels = [-100] * (len(before) + len(step) - 1) + [int(row["labels"][0])]
        return {"input_ids": before + step, "labels": labels}

    trainer = Trainer(
        model,
        TrainingArguments(**arguments(tmp_path / "prm")),
        DataCollatorForTokenClassification(tokenizer),
        rows.map(tokens, remove_columns=rows.column_names),
    )
    before = model.score.weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, model.score.weight)


HOSTILE = "</pre><script>x</script>\n\n# [a](http://evil) ![i](http://evil) `|` <b>"


def test_a_card_escapes_what_agents_and_environments_say():
    shown = inline(HOSTILE)
    assert not set("<>[]!`|#\n") & set(shown.replace("&#", ""))
    assert "://" not in shown
    assert "www." not in inline("see WWW.evil.example and www.evil.example").lower()


def test_the_hubs_cards_say_how_it_came_about(trained, capsys):
    assert main(["export", str(trained.path), "--as", "hub", "--license", "MIT"]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    folder = trained.path / "exports" / "hub"
    card = (folder / "dataset" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "mit"
    for entry in head["configs"]:
        assert (folder / "dataset" / entry["data_files"]).is_file()
    stage = json.loads(trained.results.read_text())["stages"]["explore-1"]
    assert f"{stage['usage']['policy_calls']:,}" in card
    assert "find out before you publish" in card
    card = (folder / "model" / "README.md").read_text()
    (row,) = (
        e for e in json.loads(trained.results.read_text())["evaluations"] if e["label"] != "sft"
    )
    assert f"| {row['reward']['mean']:.3f} (" in card
    assert "none: made from scratch" in card
    table = load_dataset(
        str(folder / "dataset"), "trajectories", split="train", cache_dir=str(folder / "cache")
    )
    assert "input_ids" in table.column_names


class Licensed(TreeBenchmark):
    def provenance(self):
        return {"license": "CC-BY-4.0, of its makers", "version": "3"}


def test_a_card_names_the_licence_of_the_data_or_says_that_it_is_not_known(tmp_path):
    trees = {"t": {"a": {"x": 1.0, "y": 0.0}}}
    for benchmark, licence in (
        (Licensed(trees), "CC-BY-4.0, of its makers"),
        (TreeBenchmark(trees), "not stated: find out before you publish"),
    ):
        folder = make_run(tmp_path / type(benchmark).__name__, trees)
        with open_run(folder, benchmark) as run:
            card = (export_hub(run) / "dataset" / "README.md").read_text()
        assert f"| the environment&#39;s data | {licence} |" in card
        assert card.count("CC-BY") == licence.count("CC-BY")


def test_hostile_texts_do_not_leave_their_block(tmp_path):
    tree = {"a": {HOSTILE.split()[0]: 1.0, "y": 0.0}}
    folder = make_run(tmp_path / "run", {"t": tree})
    with open_run(folder, TreeBenchmark({"t": tree})) as run:
        card = (export_hub(run) / "dataset" / "README.md").read_text()
    assert "&lt;/pre&gt;" in card
    assert "<script>" not in card
    assert card.count("</pre>") == 1


class Hub(BaseHTTPRequestHandler):
    """The four calls of an upload without large files."""

    seen: ClassVar[list] = []

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.seen.append((self.path, body))
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            kinds = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self.answer({"files": kinds})
        url = f"http://{self.headers['Host']}/me/x"
        self.answer({"url": url, "commitUrl": f"{url}/commit/1", "commitOid": "1" * 40})

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.seen = []
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()


def use_hub(monkeypatch, address):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_nothing")


def test_a_push_creates_both_repositories_and_sends_the_files(explored, hub):
    with open_run(explored, TreeBenchmark(FOREST)) as run:
        folder = export_hub(run)
        with pytest.raises(UsageError, match="--push a/b/c"):
            push(run, folder, "a/b/c")
        addresses = push(run, folder, "me/x")
    assert len(addresses) == 2
    created = [json.loads(body) for path, body in hub.seen if path == "/api/repos/create"]
    assert [entry["visibility"] for entry in created] == ["private", "private"]
    sent = b"".join(body for path, body in hub.seen if "/commit/" in path)
    for file in ("README.md", "data/labels.parquet", "sessions/1-000001.jsonl", "recipe.toml"):
        assert f'"{file}"'.encode() in sent


def test_without_a_network_the_folder_stays(explored, monkeypatch):
    use_hub(monkeypatch, "http://127.0.0.1:9")
    with open_run(explored, TreeBenchmark(FOREST)) as run:
        folder = export_hub(run)
        with pytest.raises(RroError, match="which has all of it"):
            push(run, folder, "me/x")
    assert (folder / "dataset" / "README.md").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--push", "a/b"], "are for --as hub"),
        (["step_labels", "--as", "pairs"], "step_labels gives labels, and pairs need pairs"),
        (["step_labels", "--as", "hub"], "takes no credit"),
        (["--as", "hub", "--push", "a/b/c"], "--push a/b/c"),
        (["--as", "hub", "--license", "Apache 2.0"], "such as apache-2.0"),
    ],
)
def test_what_does_not_fit_is_refused(trained, capsys, words, sentence):
    assert main(["export", str(trained.path), *words]) == 2
    assert sentence in capsys.readouterr().err
