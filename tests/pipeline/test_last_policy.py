"""The last policy of a run with a closing pass: cards, pushes and servers take that one."""

import pytest
from fakes import TreeBenchmark
from report_toys import FOREST, make_rounds

from rro.cli.main import main
from rro.errors import UsageError
from rro.pipeline.publishing import export_hub, push
from rro.pipeline.rounds import last_label
from rro.pipeline.run import open_run
from rro.runs.journal import Journal


class Api:
    """Takes what is sent to the Hub."""

    def __init__(self, **_):
        self.sent = []
        Api.last = self

    def create_repo(self, name, **_):
        return f"hub/{name}"

    def upload_folder(self, *, folder_path, **_):
        self.sent.append(folder_path)


def closed(folder, record):
    """A run of two rounds, the second of which taught nothing, and the closing pass's record."""
    run = make_rounds(folder, FOREST, count=2)
    run.checkpoint("group-1").mkdir(parents=True)
    run.checkpoint("group-2-closing").mkdir()
    with Journal(run.journal) as journal:
        for stage, policy in (
            ("explore-1", "rounds/base"),
            ("explore-2", "rounds/group-1"),
            ("evaluate-group-2-closing", "rounds/group-2-closing"),
        ):
            journal.append("policy", f"{stage}/explorer/0", {"policy": policy, "backend": "toy"})
        journal.append("stage", "closing", {"seconds": 1.0, **record})
    return run


def test_the_weights_of_the_closing_pass_are_named_and_sent(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    folder = closed(tmp_path / "run", {"training": {"steps": 1}})
    with open_run(folder, TreeBenchmark(FOREST)) as run:
        written = export_hub(run)
        push(run, written, "me/x")
    assert "# rounds, policy group-2-closing\n" in (written / "model" / "README.md").read_text()
    assert folder.checkpoint("group-2-closing") in Api.last.sent
    assert folder.checkpoint("group-1") not in Api.last.sent


@pytest.mark.parametrize(
    ("iteration", "policies"), [(None, "rounds/base, rounds/group-1"), (2, "rounds/group-1")]
)
def test_cards_list_the_policies_that_drew_the_rows(tmp_path, iteration, policies):
    with open_run(closed(tmp_path / "run", {}), TreeBenchmark(FOREST)) as run:
        written = export_hub(run, iteration)
    for kind in ("dataset", "model"):
        card = (written / kind / "README.md").read_text()
        assert f"| policies that drew the rows | {policies} |" in card
        assert "| policy: backend | toy |" in card
        assert "rounds/group-2-closing" not in card


def test_a_closing_pass_with_nothing_to_learn_leaves_the_last_round(tmp_path):
    with open_run(closed(tmp_path / "run", {"skipped": True}), TreeBenchmark(FOREST)) as run:
        assert last_label(run) == "group-1"


def test_the_last_policy_is_served(tmp_path, monkeypatch, capsys):
    def opened(run, label):
        raise UsageError(f"opened {label}")

    monkeypatch.setattr("rro.pipeline.weights.open_policy", opened)
    folder = closed(tmp_path / "run", {"training": {"steps": 1}})
    assert main(["serve-policy", str(folder.path)]) == 2
    assert "opened group-2-closing" in capsys.readouterr().err
