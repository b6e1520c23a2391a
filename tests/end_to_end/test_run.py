"""The whole path with a model that really trains: every stage, its files, and what comes out."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest

HERE = Path(__file__).parent
# By how many times an estimate may be too high: doors are found before the step limit, and
# messages are shorter than policy.max_new_tokens.
FACTOR = 20


def rro(*arguments, processes=1, timeout=280, **options):
    """The command line in a process of its own, where `doors` can be imported, or in several."""
    if processes == 1:
        return forked.rro(*arguments)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
    }
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher, "-m", "rro", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, **options
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    ran = rro("run", HERE / "doors.toml", "--out", folder)
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout, json.loads((folder / "results.json").read_text())


def test_the_table_shows_both_policies_and_the_cost(finished):
    _, table, _ = finished
    for word in (
        "sft",
        "rro-1",
        "difference in reward",
        "against sft",
        "pairs",
        "candidates",
        "policy",
        "seconds",
        "run folder",
    ):
        assert word in table


def test_the_run_folder_is_complete(finished):
    folder, _, _ = finished
    for name in (
        "config.toml",
        "journal.jsonl",
        "experts.jsonl",
        "pairs-1.jsonl",
        "pairs-1.parquet",
        "metrics.jsonl",
    ):
        assert (folder / name).stat().st_size > 0
    for label in ("base", "sft", "rro-1"):
        assert (folder / "checkpoints" / label / "model.safetensors").exists()
    assert {
        json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    } == {"sft", "dpo"}


def test_rro_improves_on_its_noisy_experts_student(finished):
    _, _, results = finished
    reward = {(row["label"], row["mode"]): row["reward"]["mean"] for row in results["evaluations"]}
    assert 0.3 < reward["sft", "sampled"] < 0.9  # learned something, and left room
    [difference] = [row for row in results["differences"] if row["mode"] == "sampled"]
    assert difference["low"] > 0


def test_costs_add_up_to_the_journal(finished):
    folder, _, results = finished
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    ours = [record for record in records if record["key"].startswith("1/")]
    drawn = [record for record in ours if record["kind"] in ("candidate", "rollout")]
    assert (
        sum(record["usage"]["policy_calls"] for record in drawn)
        == results["stages"]["explore-1"]["usage"]["policy_calls"]
    )
    pairs = (folder / "pairs-1.jsonl").read_text().splitlines()
    assert len(pairs) == results["stages"]["explore-1"]["pairs"]


def test_what_check_foretold_was_not_exceeded_and_not_far_off(finished):
    results, told = finished[2], rro("check", HERE / "doors.toml").stdout

    def most(part, unit):
        return int(re.search(rf"{part}: .*?([\d,]+) {unit}", told)[1].replace(",", ""))

    used = results["stages"]["explore-1"]["usage"]
    for unit, taken in (
        ("policy calls", used["policy_calls"]),
        ("sampled tokens", used["generated_tokens"]),
    ):
        assert taken <= most("exploration", unit) <= FACTOR * taken
    played = sum(row["usage"]["policy_calls"] for row in results["evaluations"])
    assert played <= most("evaluation", "policy calls") <= FACTOR * played
    for part, stage in (("sft", "sft"), ("dpo", "optimise-1")):
        training = results["stages"][stage]["training"]
        assert training["metrics"]["num_tokens"] <= most(part, "tokens trained on")


def test_pairs_load_with_datasets_and_say_who_priced_them(finished):
    from datasets import load_dataset

    folder, _, _ = finished
    for kind, name in (("json", "pairs-1.jsonl"), ("parquet", "pairs-1.parquet")):
        rows = load_dataset(
            kind, data_files=str(folder / name), split="train", cache_dir=str(folder / "cache")
        )
        assert len(rows) > 10
        for row in rows:
            assert row["chosen_reward"] > row["rejected_reward"]
            assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
            assert row["prompt"][-1]["role"] == "user"
            assert row["chosen_pricing_policy"] in ("doors/sft", "expert")
            assert row["chosen_sources"] == ["policy"]


def test_trained_tokens_are_the_sampled_ones(finished):
    from rro.learning.pairs import read_pairs
    from rro.models.chat import ChatFormat
    from rro.models.loading import load_model
    from rro.runs.folder import RunFolder

    folder, _, _ = finished
    run = RunFolder.open(folder)
    _, tokenizer = load_model(run.config.model, run.checkpoint("sft"), train=False)
    chat = ChatFormat(tokenizer)
    for pair in read_pairs(run.pairs(1)):
        for side in (pair.chosen, pair.rejected):
            encoded = chat.encode([*pair.prompt, *side], add_generation_prompt=False)
            trained = [token for token, loss in zip(encoded.ids, encoded.mask, strict=True) if loss]
            sampled = [
                token for message in (*pair.prompt, *side) for token in message.token_ids or ()
            ]
            assert trained == sampled


def test_share_of_rising_steps_is_reported(finished):
    _, _, results = finished
    for label in ("sft", "rro-1"):
        stage = results["stages"][f"evaluate-{label}"]
        assert stage["trend_tasks"] == 10
        assert any(share is not None for share in stage["rising_share_by_stage"])


@pytest.mark.slow
def test_stages_one_by_one_with_the_model_in_two_processes_give_the_same_pairs(finished, tmp_path):
    folder, _, results = finished
    out = tmp_path / "staged"
    for arguments in (
        ("sft", HERE / "doors.toml", "policy.replicas=2", "--out", out),
        ("explore", out),
        ("optimize", out),
        ("evaluate", out),
    ):
        ran = rro(*arguments)
        assert ran.returncode == 0, ran.stderr
    assert (out / "pairs-1.jsonl").read_text() == (folder / "pairs-1.jsonl").read_text()
    staged = json.loads((out / "results.json").read_text())
    assert [row["reward"] for row in staged["evaluations"]] == [
        row["reward"] for row in results["evaluations"]
    ]
    compared = rro("compare", folder, out)
    assert compared.returncode == 0, compared.stderr
    assert "0.000 [0.000, 0.000]" in compared.stdout


def test_a_second_iteration_within_a_budget_priced_by_the_sft_model(finished, tmp_path):
    folder, _, _ = finished
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    config = (again / "config.toml").read_text()
    config = config.replace('pricing = "policy"', 'pricing = "sft"').replace(
        "concurrency = 40", "concurrency = 4"
    )
    (again / "config.toml").write_text(config)
    trusted = ("explore", again, "--trust-run-folder")
    ran = rro(*trusted, "--iteration", 2, "--budget", "policy_calls=400")
    assert ran.returncode == 0, ran.stderr
    assert "the budget of policy_calls is spent" in ran.stderr
    records = [json.loads(line) for line in (again / "journal.jsonl").read_text().splitlines()]
    [stage] = [record for record in records if record["key"] == "explore-2"]
    assert (stage["ended_by"], stage["budget"]) == ("policy_calls", {"policy_calls": 400})
    assert stage["left_tasks"] > 0
    work = [record for record in records if record["key"].startswith("2/") and "usage" in record]
    assert (
        300
        < sum(record["usage"]["policy_calls"] for record in work if record["kind"] != "task")
        < 460
    )
    assert {record["policy"] for record in work if record["kind"] == "candidate"} == {"doors/rro-1"}
    assert {record["policy"] for record in work if record["kind"] == "rollout"} == {"doors/sft"}
    rows = [json.loads(line) for line in (again / "pairs-2.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        assert row["chosen_pricing_policy"] in (
            ("doors/rro-1",) if row["chosen_exact"] else ("doors/sft",)
        )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fixed", "ipr", "eto", "rft"])
def test_baselines_run_under_the_same_accounting(strategy, tmp_path):
    settings = [
        f"explore.strategy={strategy}",
        "explore.tasks=20",
        "evaluate.trend_tasks=0",
        "rounds.count=2",
    ]
    ran = rro("run", HERE / "doors.toml", *settings, "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["evaluations"][-1]["label"] == f"{strategy}-2"
    assert results["stages"]["explore-2"]["usage"]["policy_calls"] > 0


@pytest.mark.slow
def test_two_processes_train_like_one(finished, tmp_path):
    """`accelerate launch` starts processes as torch.distributed.run does (but on a CPU it ignores
    their number)."""
    folder, _, _ = finished
    ran = rro("sft", HERE / "doors.toml", "--out", tmp_path / "run", processes=2)
    assert ran.returncode == 0, ran.stderr
    ran = rro("explore", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    ran = rro("optimise", tmp_path / "run", processes=2)
    assert ran.returncode == 0, ran.stderr
    losses = []
    for journal in (folder / "journal.jsonl", tmp_path / "run" / "journal.jsonl"):
        stages = [
            json.loads(line)
            for line in journal.read_text().splitlines()
            if '"kind":"stage"' in line
        ]
        losses.append(
            {
                stage["key"]: stage["training"]["last_loss"]
                for stage in stages
                if "training" in stage
            }
        )
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.slow
def test_exploring_in_several_processes_is_refused(finished):
    folder, _, _ = finished
    ran = rro("explore", folder, "--iteration", 2, processes=2)
    assert ran.returncode != 0
    assert "explore runs in one process" in ran.stderr


@pytest.mark.slow
def test_tensorboard_gets_every_stage(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ran = rro(
        "run",
        HERE / "doors.toml",
        'report_to=["tensorboard"]',
        "evaluate.trend_tasks=0",
        "--out",
        tmp_path / "run",
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    tags = {}
    for folder in (tmp_path / "run" / "tensorboard").iterdir():
        events = EventAccumulator(str(folder))
        events.Reload()
        tags[folder.name] = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert tags.keys() == {"doors-sft", "doors-explore-1", "doors-optimise-1", "doors-evaluate"}
    assert "train/loss" in tags["doors-sft"]
    assert "train/rewards/margins" in tags["doors-optimise-1"]
    assert tags["doors-explore-1"]["explore/pairs"] == results["stages"]["explore-1"]["pairs"]
    last = [
        row for row in results["evaluations"] if row["label"] == "rro-1" and row["mode"] == "greedy"
    ]
    assert tags["doors-evaluate"]["evaluate/greedy/reward"] == pytest.approx(
        last[0]["reward"]["mean"]
    )


def test_a_report_of_a_real_run(finished, tmp_path):
    folder, _, results = finished
    ran = rro("report", folder, "--out", tmp_path / "report.html")
    assert ran.returncode == 0, ran.stderr
    from rro.report.gather import Gatherer

    with Gatherer([folder]) as gatherer:
        head, _ = gatherer.whole()
    [run] = head["runs"]
    said = {
        (row["label"], row["mode"]): (row["reward"], row["success"]) for row in run["evaluations"]
    }
    assert said == {
        (row["label"], row["mode"]): (row["reward"], row["success"])
        for row in results["evaluations"]
    }
    ours = {
        (row["label"], row["mode"], row["mean"], row["low"], row["high"])
        for row in run["differences"]
    }
    assert ours == {
        (row["label"], row["mode"], row["mean"], row["low"], row["high"])
        for row in results["differences"]
    }
    assert [group["name"] for group in run["groups"]] == ["1", "trend-sft", "trend-rro-1"]
    explored = results["stages"]["explore-1"]
    assert (run["groups"][0]["pairs"], run["groups"][0]["usage"][0]) == (
        explored["pairs"],
        explored["usage"]["policy_calls"],
    )
    shares = [part / whole if whole else None for part, whole in run["groups"][1]["rising"]]
    assert shares == results["stages"]["evaluate-sft"]["rising_share_by_stage"]
