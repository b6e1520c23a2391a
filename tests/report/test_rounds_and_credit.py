"""What the report says of rounds, and the advantages that it shows on trees."""

import pytest
from fakes import finished_trees
from report_toys import FOREST, gathered, make_rounds, make_run, trees

from rro.exploration.visits import played_rollouts
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.runs.folder import SIGNED
from rro.runs.journal import Journal

DR_GRPO = {"credit": {"name": "group_advantages", "options": {"scale": "none"}}}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    return make_rounds(tmp_path_factory.mktemp("runs") / "rounds", FOREST, **DR_GRPO)


def test_a_round_has_its_reward_its_tokens_and_its_figures(rounds):
    head, _ = gathered(rounds.path)
    shown = head["runs"][0]["rounds"]
    generated = [group["usage"][head["usage"].index("generated_tokens")] for group in groups(head)]
    assert [each["round"] for each in shown] == [1, 2, 3, 4]
    assert [each["generated"] for each in shown] == [sum(generated[: n + 1]) for n in range(4)]
    assert [each["figures"].get("loss") for each in shown] == [1.0, 0.5, 1 / 3, None]
    assert "step" not in shown[0]["figures"]
    assert [each["skipped"] for each in shown] == [False, False, False, True]
    with Journal(rounds.journal, read_only=True) as journal:
        outcomes = [
            rollout.reward
            for tree in finished_trees(journal, "1/").values()
            for rollout in tree.root.rollouts.values()
        ]
    assert shown[0]["reward"]["mean"] == pytest.approx(sum(outcomes) / len(outcomes))


def groups(head):
    return head["runs"][0]["groups"]


def test_a_run_of_one_round_is_shown_as_before(tmp_path):
    head, _ = gathered(make_run(tmp_path / "run", FOREST).path)
    (only,) = head["runs"][0]["rounds"]
    assert (only["round"], only["figures"], only["skipped"]) == (1, {}, False)


def test_every_message_shows_the_advantage_that_it_was_trained_with(rounds):
    head, chunks = gathered(rounds.path)
    with Journal(rounds.journal, read_only=True) as journal:
        grown = finished_trees(journal)
    forked = 0
    for entry, tree, _ in trees(head, chunks):
        own = grown[f"{entry['group']}/{entry['id']}"]
        rows = zip(played_rollouts(own), GroupAdvantages("none").rows(own), strict=True)
        expected = {
            (played.node.id, at): values(row.advantages) for at, (played, row) in enumerate(rows)
        }
        nodes = [node for node in tree["nodes"] if node["rollouts"]]
        shown = [
            (node["id"], [step[5] for step in rollout["steps"]])
            for node in nodes
            for rollout in node["rollouts"]
        ]
        assert shown == [(name, given) for (name, _), given in expected.items()]
        for node in tree["nodes"]:
            if "step" in node and (taken := passing(own, node["id"])):
                forked += 1
                assert node["step"][5] == pytest.approx(sum(taken) / len(taken), abs=1e-4)
    assert forked


def values(advantages):
    return [round(value, 4) for value in advantages if value is not None]


def passing(tree, name):
    """The advantages of the first steps that led from the start to a node below it."""
    (node,) = [node for node in tree.root.walk() if node.id == name]
    if node.depth != 1:
        return []
    rows = zip(played_rollouts(tree), GroupAdvantages("none").rows(tree), strict=True)
    return [
        values(row.advantages)[0]
        for played, row in rows
        if played.node is tree.root and played.steps[0].action.content == node.action.content
    ]


def test_a_credit_that_gives_pairs_shows_no_advantage(tmp_path):
    head, chunks = gathered(make_run(tmp_path / "run", FOREST).path)
    for _, tree, _ in trees(head, chunks):
        assert {node["step"][5] for node in tree["nodes"] if "step" in node} == {None}


def test_a_credit_that_fails_costs_the_report_nothing(tmp_path, monkeypatch):
    (tmp_path / "broken_credit.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    run = make_rounds(tmp_path / "run", FOREST, credit={"name": "broken_credit:Broken"})
    head, chunks = gathered(run.path)
    assert len(list(trees(head, chunks))) == 4 * len(FOREST)


BROKEN = """
from rro.learning.credit.base import Credit

class Broken(Credit):
    gives = "advantages"
    def rows(self, tree):
        raise SystemExit("never mind")
"""

OWN = """
from rro.learning.credit.group_advantages import GroupAdvantages
print("imported")

class Mine(GroupAdvantages):
    pass
"""


@pytest.mark.parametrize("ours", [True, False])
def test_the_code_of_somebody_else_is_not_run(tmp_path, monkeypatch, capsys, ours):
    name = "mine_of_ours" if ours else "mine_of_theirs"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    run = make_rounds(tmp_path / "run", FOREST, credit={"name": f"{name}:Mine"})
    if not ours:
        (run.path / SIGNED).unlink()
    capsys.readouterr()
    head, chunks = gathered(run.path)
    given = {
        step[5]
        for _, tree, _ in trees(head, chunks)
        for node in tree["nodes"]
        for rollout in node["rollouts"]
        for step in rollout["steps"]
    }
    assert (given == {None}) is not ours
    assert ("imported" in capsys.readouterr().out) is ours
