"""The scripts of docs/python.md run as they stand there."""

import re
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'```python title="(?P<name>\w+\.py)"\n(?P<code>.*?)```', re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """A folder with the page's files."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(page):
        (tmp_path / block["name"]).write_text(block["code"], encoding="utf-8")
    return tmp_path


def run(script, folder):
    done = forked.python(script, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_have_at_most_forty_lines(folder):
    for name in ("whole_path.py", "own_parts.py"):
        assert len((folder / name).read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_whole_path(folder):
    lines = run("whole_path.py", folder).splitlines()
    assert re.match(r"  +\d\.\d\d n=4  \(start\)", lines[0])
    assert any(line.startswith(("*", "^")) and " open " in line for line in lines)
    figures = [re.match(r"(sft|dpo): (\d\.\d{3}) \[", line) for line in lines[-2:]]
    assert all(figures), lines[-2:]
    assert float(figures[1][2]) > float(figures[0][2])


def test_own_policy_and_strategy(folder):
    lines = run("own_parts.py", folder).splitlines()
    assert lines[0].rstrip().endswith("?       (start)")
    assert re.match(r"[1-9]\d* pairs of 5 tasks", lines[-1])
