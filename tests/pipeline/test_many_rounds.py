"""Rounds on new tasks with one live policy, a closing pass, and what is kept of them."""

import json
import logging
from dataclasses import replace

import pytest
from door_runs import door_run

from rro.cli.main import main
from rro.codec import usage_of
from rro.config import CreditConfig, OptimiseConfig
from rro.pipeline import stages
from rro.pipeline.run import open_run
from rro.runs.journal import Journal

SECTIONS = {
    "sft": {"epochs": 6, "learning_rate": 6e-3, "batch_size": 16, "micro_batch": 16},
    "explore": {"strategy": "group", "tasks": 6, "options": {"episodes": 4}},
    "credit": {"name": "successes"},
    "optimise": {"learner": "sft"},
    "rounds": {"count": 3, "evaluate_every": 3},
    "closing": {"successes": 1, "learning_rate": 1e-4, "epochs": 1},
    "evaluate": {"tasks": 3, "greedy": False, "bootstrap": 100},
}


@pytest.fixture
def folder(tmp_path):
    return door_run(tmp_path / "run", "rounds", **SECTIONS)


def keys(folder, kind):
    with Journal(folder.journal, read_only=True) as journal:
        return [str(record["key"]) for record in journal.records(kind)]


def rewards(folder):
    """The reward of every evaluated episode."""
    with Journal(folder.journal, read_only=True) as journal:
        records = journal.records("evaluation")
        return {record["key"]: (record["reward"], len(record["steps"])) for record in records}


def test_rounds_explore_new_tasks_with_the_policy_of_the_round_before(folder, caplog):
    caplog.set_level(logging.INFO, "rro")
    assert main(["run", "--resume", str(folder.path)]) == 0
    tasks = keys(folder, "task")
    assert len(tasks) == 18
    assert len({key.partition("/")[2] for key in tasks}) == 18
    with Journal(folder.journal, read_only=True) as journal:
        acting = [
            journal.get("policy", f"explore-{number}/explorer/0")["policy"] for number in (1, 2, 3)
        ]
    assert acting == ["rounds/sft", "rounds/group-1", "rounds/group-2"]
    loads = [record for record in caplog.records if "loading the policy" in record.getMessage()]
    assert len(loads) == 1
    results = json.loads(folder.results.read_text())
    labels = [row["label"] for row in results["evaluations"]]
    assert labels == ["sft", "group-3", "group-3-closing"]
    kept = {path.name for path in (folder.path / "checkpoints").iterdir()}
    assert kept == {"base", "sft", "group-2", "group-3", "group-3-closing"}


def test_a_round_that_teaches_nothing_leaves_the_weights(folder):
    with open_run(folder) as run:
        stages.sft(run)
        run.journal.append("stage", "optimise-1", {"seconds": 0.0, "skipped": True})
        stages.explore(run, 2)
        record = run.journal.get("policy", "explore-2/explorer/0")
    assert record["policy"] == "rounds/sft"


def test_a_round_without_advantages_is_the_learners_business(folder):
    """With successes to imitate it is trained on; with nothing it leaves the weights."""
    trained = []
    for imitate in (0.3, 0.0):
        optimise = OptimiseConfig(
            learner="policy_gradient", options={"advantages": False, "imitate": imitate}
        )
        credit = CreditConfig(name="group_advantages")
        config = folder.config.model_copy(update={"optimise": optimise, "credit": credit})
        with open_run(replace(folder, config=config)) as run:
            stages.sft(run)
            number = len(trained) + 1
            stages.explore(run, number)
            stages.optimise(run, number)
            trained.append(run.journal.get("stage", f"optimise-{number}"))
    assert trained[0]["training"]["rows"]["used"] == 0
    assert trained[0]["training"]["metrics"]["imitation_loss"] > 0
    assert trained[1]["skipped"]


def test_a_run_goes_on_where_a_round_was_cut_off(folder, tmp_path):
    with open_run(folder) as run:
        stages.sft(run)
        stages.explore(run, 1)
        stages.optimise(run, 1)
        stages.explore(run, 2)
    assert main(["run", "--resume", str(folder.path)]) == 0
    whole = door_run(tmp_path / "whole", "rounds", **SECTIONS)
    assert main(["run", "--resume", str(whole.path)]) == 0
    assert rewards(folder) == rewards(whole)


def generated_tokens(folder):
    """Of each round, in order."""
    generated = {}
    with Journal(folder.journal, read_only=True) as journal:
        for record in journal.records("rollout"):
            number = int(str(record["key"]).partition("/")[0])
            tokens = usage_of(record).generated_tokens
            generated[number] = generated.get(number, 0) + tokens
    return [generated[number] for number in sorted(generated)]


def test_rounds_end_with_the_tokens_that_they_may_generate(tmp_path):
    rounds = {"count": 50, "evaluate_every": 3, "generated_tokens": 300}
    folder = door_run(tmp_path / "run", "rounds", **SECTIONS | {"rounds": rounds})
    assert main(["run", "--resume", str(folder.path)]) == 0
    *before, last = generated = generated_tokens(folder)
    assert sum(before) < 300 <= sum(before) + last
    results = json.loads(folder.results.read_text())
    last = f"group-{len(generated)}"
    assert [row["label"] for row in results["evaluations"]] == ["sft", last, f"{last}-closing"]


@pytest.mark.parametrize("limit", [None, 300])
def test_the_learning_rate_falls_over_the_rounds(tmp_path, limit):
    options = {"learning_rate": 1e-3, "final_learning_rate": 1e-4, "imitate": 0.3, "epochs": 1}
    sections = SECTIONS | {
        "rounds": {"count": 3, "evaluate_every": 3, "generated_tokens": limit},
        "credit": {"name": "group_advantages"},
        "optimise": {"learner": "policy_gradient", "policy_gradient": options},
        "closing": {"successes": 0},
    }
    folder = door_run(tmp_path / "run", "rounds", **sections)
    assert main(["run", "--resume", str(folder.path)]) == 0
    generated = generated_tokens(folder)
    behind = [
        sum(generated[:number]) / limit if limit else number / 3 for number in range(len(generated))
    ]
    rates = {}
    for line in (folder.path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("stage") == "policy_gradient":
            rates.setdefault(record["iteration"], record["learning_rate"])
    assert len(rates) > 1
    expected = [1e-3 - 9e-4 * share for share in behind]
    assert [rates[number] for number in sorted(rates)] == pytest.approx(expected)


def test_the_samplers_log_probabilities_are_kept_and_learned_from(tmp_path):
    sections = SECTIONS | {
        "rounds": {"count": 2, "evaluate_every": 2},
        "credit": {"name": "group_advantages"},
        "optimise": {"learner": "policy_gradient", "options": {"old_logprobs": "sampled"}},
        "closing": {"successes": 0},
    }
    folder = door_run(tmp_path / "run", "rounds", **sections)
    assert main(["run", "--resume", str(folder.path)]) == 0
    with Journal(folder.journal, read_only=True) as journal:
        rollouts = list(journal.records("rollout"))
        trained = [journal.get("stage", f"optimise-{number}").get("training") for number in (1, 2)]
    steps = [step for rollout in rollouts for step in rollout["steps"]]
    assert all(len(step["logprobs"]) == len(step["action"]["token_ids"]) for step in steps)
    assert any(report and report["rows"]["used"] > 0 for report in trained)
