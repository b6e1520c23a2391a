"""A power cut tears or empties files. That costs work, never the run: it is resumed, and ends like
an undisturbed one."""

import random
import shutil

import pytest
from small_runs import finish, new_run, outcome, said, start

# Who made the run: without it the run is somebody else's, and the user is asked.
SIGNED = "config.signed.json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and one that was interrupted before it had learned from its pairs."""
    folder = tmp_path_factory.mktemp("runs")
    process = new_run(folder, "rro", folder / "finished")
    assert finish(process) == 0, said(process)
    shutil.copytree(folder / "finished", folder / "half")
    lines = (folder / "half" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    end = next(n for n, line in enumerate(lines) if b'"optimise-1"' in line)
    (folder / "half" / "journal.jsonl").write_bytes(b"".join(lines[:end]))
    shutil.rmtree(folder / "half" / "checkpoints" / "rro-1")
    (folder / "half" / "results.json").unlink()
    return folder


def damage(file, chance):
    """Cut a file at a random place, or put zeros there: the rest of it, or a part; returns how."""
    content = bytearray(file.read_bytes())
    at, how = chance.randrange(len(content) + 1), chance.choice(("cut", "zeros", "part", "empty"))
    if how == "cut":
        del content[at:]
    elif how == "empty":
        content.clear()
    else:
        end = len(content) if how == "zeros" else min(len(content), at + 64)
        content[at:end] = bytes(end - at)
    file.write_bytes(content)
    return how, at


def resumed_after_damage(runs, tmp_path, which, name, seed):
    run, expected = tmp_path / "run", outcome(runs / "finished")
    shutil.copytree(runs / which, run)
    how = damage(run / name, random.Random(seed))
    trust = ["--trust-run-folder"] if name == SIGNED else []
    process = start("run", "--resume", run, *trust)
    code, printed = finish(process), said(process)
    assert "Traceback" not in printed, (name, how, printed)
    assert code == 0, (name, how, printed)
    assert outcome(run) == expected, (name, how, printed)


def names(run):
    return [str(file.relative_to(run)) for file in sorted(run.rglob("*")) if file.is_file()]


@pytest.mark.parametrize("which", ["finished", "half"])
def test_zeros_in_the_journal_cost_work_only(runs, tmp_path, which):
    resumed_after_damage(runs, tmp_path, which, "journal.jsonl", 5)


def test_torn_weights_are_trained_again(runs, tmp_path):
    resumed_after_damage(runs, tmp_path, "half", "checkpoints/sft/model.safetensors", 1)


def test_an_empty_configuration_is_restored(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "finished", run)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_bytes(bytes(len(text)))
    process = start("run", "--resume", run)
    assert finish(process) == 0, said(process)
    assert (run / "config.toml").read_text() == text


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("which", ["finished", "half"])
def test_any_file_may_be_damaged(runs, tmp_path, which):
    chance, listed = random.Random(7), names(runs / which)
    for number, name in enumerate(listed):
        if name == "config.toml":
            continue
        resumed_after_damage(runs, tmp_path / str(number), which, name, chance.random())
