"""The whole path by tool calls: experts' calls are imitated, explored from, and trained on."""

import json
from pathlib import Path

import forked
import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow
LEARNERS = {
    "dpo": [],
    "policy_gradient": [
        "explore.strategy=group",
        "credit.name=group_advantages",
        "optimise.learner=policy_gradient",
    ],
}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.timeout(900)
def test_a_model_learns_to_call_tools_and_improves(tmp_path, learner):
    folder = tmp_path / "run"
    ran = forked.rro("run", HERE / "tool_doors.toml", *LEARNERS[learner], "--out", folder)
    assert ran.returncode == 0, ran.stderr
    results = json.loads((folder / "results.json").read_text())
    rewards = {
        row["label"]: row["reward"]["mean"]
        for row in results["evaluations"]
        if row["mode"] == "sampled"
    }
    first, last = rewards.values()
    assert 0.3 < first < 0.9
    assert last > first
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    steps = [
        step
        for record in records
        if record["kind"] in ("candidate", "episode", "rollout")
        for step in (record.get("step"), *record.get("steps", ()))
        if step
    ]
    called = [step for step in steps if step["action"].get("tool_calls")]
    assert len(called) > 0.9 * len(steps)
    assert all(step["action"]["token_ids"] for step in called)
