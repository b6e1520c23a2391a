"""The script for a lent GPU, in its reduced form on a CPU: every part runs and says something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_part_of_the_gpu_script_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", tmp_path, "--device", "cpu", "--reduced"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, timeout=1100)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [part for part, found in results.items() if "failed" in found] == []
    assert 0 < results["logprobs"]["cpu bfloat16"] < 1.0
    same, other = results["steps"]["cpu float32"], results["steps"]["cpu bfloat16"]
    for learner in ("dpo", "policy_gradient"):
        assert same[learner]["grad_norm"] == pytest.approx(other[learner]["grad_norm"], rel=0.2)
    assert results["sampling"]
    assert results["training"]
