"""The program of docs/agents.md, as it stands there, with fewer rounds."""

import re
from pathlib import Path

import doors
import forked
import pytest
from door_runs import SIZES

import rro

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"


@pytest.mark.slow
def test_the_policy_of_an_agent_that_is_not_ours_learns(tmp_path):
    bench = doors.open_doors()
    shown = rro.play_experts(bench, bench.tasks("train")[:100], noise=0.4)
    model = rro.make_model(shown, tmp_path / "model", **SIZES)
    settings = {"epochs": 12, "learning_rate": 6e-3, "batch_size": 16}
    rro.train(shown, model, tmp_path / "base", **settings)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    program = program.replace("range(1, 17)", "range(1, 7)")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = forked.python("program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = [float(score) for score in re.findall(r"mean score (\d\.\d+)", done.stdout)]
    assert len(scores) == 6
    assert scores[-1] > scores[0] + 0.1
