"""From journals to the page's data: figures come from the records, and each text is stored once."""

import json

import pytest
from fakes import TreeBenchmark, explore, finished_trees, folded, fresh_journal, make_context
from report_toys import FOREST, gathered, make_run, speaker, trees

from rro.errors import DataError
from rro.exploration.explorer import summarise
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.strategies.eto import TrajectoryExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rft import RejectionSampling
from rro.exploration.strategies.rising import RisingExploration
from rro.policies.scripted import ScriptedPolicy
from rro.report.gather import Gatherer
from rro.report.pack import unpack
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.types import Message, Source, Step, StopReason, Trajectory, Usage


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "toy", FOREST)


def test_the_overview_says_what_the_journal_says(toy):
    head, _ = gathered(toy.path)
    with Journal(toy.journal, read_only=True) as journal:
        grown = list(finished_trees(journal, "1/").values())
        drawn = sum(1 for _ in journal.records("candidate"))
    summary = summarise(grown)
    pairs = len(toy.pairs(1).read_text().splitlines())
    [run], [group] = head["runs"], head["runs"][0]["groups"]
    assert (group["tasks"], group["finished"], group["steps"]) == (
        len(FOREST),
        len(FOREST),
        summary.steps,
    )
    assert (group["candidates"], group["pairs"]) == (drawn, pairs)
    assert (
        sum(count * times for count, times in group["per_step"]) / summary.steps
        == summary.candidates_per_step
    )
    assert [part / whole for part, whole in group["rising"]] == list(summary.rising)
    cost = dict(zip(head["usage"], group["usage"], strict=True))
    assert (cost["policy_calls"], cost["environment_steps"]) == (
        summary.usage.policy_calls,
        summary.usage.environment_steps,
    )
    assert [point["n"] for point in group["along"]][:2] == [len(FOREST)] * 2
    assert [(row["label"], row["reward"]["n"]) for row in run["evaluations"]] == [
        ("sft", 12),
        ("rro-1", 12),
    ]
    assert [(row["label"], row["against"]) for row in run["differences"]] == [("rro-1", "sft")]
    assert [(point["label"], point["usage"][0] > 0) for point in run["curve"]] == [
        ("sft", False),
        ("rro-1", True),
    ]


def test_a_tree_has_every_node_with_its_estimate_and_what_became_of_it(toy):
    head, chunks = gathered(toy.path)
    with Journal(toy.journal, read_only=True) as journal:
        for entry, tree, text in trees(head, chunks):
            key = f"1/{entry['id']}"
            nodes = {node["id"]: node for node in tree["nodes"]}
            end = journal.get("task", key)
            candidates = {
                record["key"].rpartition("/")[2]: record
                for record in journal.records("candidate", f"{key}/")
            }
            assert nodes.keys() == {"0", *candidates}
            assert nodes["0"]["estimate"]["mean"] == entry["start"]
            for name, record in candidates.items():
                assert text(nodes[name]["step"][0]) == record["step"]["action"]["content"]
                assert text(nodes[name]["step"][1]) == record["step"]["observation"]
                assert tree["nodes"][nodes[name]["parent"]]["id"] == name.rpartition(".")[0]
                if record["stop"]:
                    assert nodes[name]["estimate"]["outcomes"] == [record["reward"]]
            for name, node in end["nodes"].items():
                shown = nodes[name]["estimate"]
                assert {field: shown[field] for field in node["estimate"]} == node["estimate"]
                assert nodes[name].get("committed", False) == node["committed"]
                assert nodes[name].get("rose", False) == node["rose"]
            spent = sum(node["usage"][0] for name, node in nodes.items() if name != "0")
            spent += sum(
                rollout["usage"][0] for node in nodes.values() for rollout in node["rollouts"]
            )
            assert spent == Usage(**end["usage"]).policy_calls == entry["calls"]


def test_a_pair_names_the_nodes_that_it_came_from(toy):
    head, chunks = gathered(toy.path)
    pairs = [(tree, pair) for _, tree, _ in trees(head, chunks) for pair in tree["pairs"]]
    assert len(pairs) > 5
    for tree, pair in pairs:
        nodes = {node["id"]: node for node in tree["nodes"]}
        for side in ("chosen", "rejected"):
            node = nodes[pair[side]["node"]]
            assert side in node["sides"]
            assert node["estimate"]["mean"] == pair[side]["reward"]
            assert node["step"][0] == pair[side]["messages"][0][1]
        assert nodes[pair["chosen"]["node"]]["parent"] == nodes[pair["rejected"]["node"]]["parent"]
        assert nodes[pair["chosen"]["node"]]["committed"]


def test_each_text_stands_once_in_its_chunk(toy):
    _, chunks = gathered(toy.path)
    for chunk in chunks:
        assert len(set(chunk["strings"])) == len(chunk["strings"])


def expert(task):
    """Goes to b, then x: 0.6."""
    steps = (
        Step(Message("assistant", "b", Source.EXPERT), "at b: go x y", 0.0, False),
        Step(Message("assistant", "x", Source.EXPERT), "the end", 0.6, True),
    )
    opening = (Message("system", "Walk."), Message("user", "at : go a b c"))
    return Trajectory(task, opening, steps, 0.6, StopReason.TERMINAL, "expert", 0)


EXPERTS = {task: expert(task) for task in FOREST}
OTHERS = [
    FixedSizeExploration(2, 2),
    folded(IterativeStepRefinement(2, context=StrategyContext(EXPERTS)), EXPERTS),
    folded(TrajectoryExploration(), EXPERTS),
    AdaptiveExploration(),
    folded(RejectionSampling(3)),
]


@pytest.mark.parametrize("strategy", OTHERS, ids=lambda one: one.name)
def test_other_strategies_have_trees_and_pairs_too(tmp_path, strategy):
    run = make_run(tmp_path / "run", FOREST, strategy=strategy, evaluated=())
    head, chunks = gathered(run.path)
    pairs = 0
    for entry, tree, text in trees(head, chunks):
        nodes = {node["id"]: node for node in tree["nodes"]}
        pairs += len(tree["pairs"])
        assert tree["strategy"] == strategy.name
        assert bool(tree["episodes"]) == (strategy.name not in ("fixed", "adaptive"))
        assert any(node.get("committed") for node in tree["nodes"]) == (
            strategy.name in ("fixed", "ipr", "adaptive")
        )
        for pair in tree["pairs"]:
            for side in (pair["chosen"], pair["rejected"]):
                if pair["kind"] == "trajectory":
                    assert side["node"] is None
                    assert entry["nodes"][2] == 1  # the filter "pairs only" finds it at the start
                elif side["node"] is None:  # beside the committed path
                    assert strategy.name == "adaptive"
                else:
                    assert nodes[side["node"]]["estimate"]["mean"] == side["reward"]
                    assert all(node["step"] for name, node in nodes.items() if name != "0")
                    assert text(nodes[side["node"]]["step"][0]) == text(side["messages"][0][1])
    assert (pairs > 0) == (strategy.name != "rft")


def test_a_run_under_way_is_shown_as_far_as_it_came(tmp_path, toy):
    """Cut after each record: no cut is refused, and nothing that is not there is made up."""
    lines = toy.journal.read_bytes().splitlines(keepends=True)
    (tmp_path / "config.toml").write_bytes((toy.path / "config.toml").read_bytes())
    for kept in (0, 1, 2, 5, 40, len(lines) // 2, len(lines) - 3):
        (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        head, _ = gathered(tmp_path)
        records = [json.loads(line) for line in lines[:kept]]
        assert sum(entry["finished"] for entry in head["tasks"]) == sum(
            record["kind"] == "task" for record in records
        )
        assert sum(group["candidates"] for group in head["runs"][0]["groups"]) == sum(
            record["kind"] == "candidate" for record in records
        )


def test_a_journal_is_followed_while_another_writes_it(tmp_path):
    (tmp_path / "config.toml").write_text("")
    gatherer = Gatherer([tmp_path])
    assert gatherer.live()["tasks"] == []  # a run that is only just beginning
    with fresh_journal(tmp_path) as journal:
        benchmark, policy = TreeBenchmark(FOREST), ScriptedPolicy(speaker, "p")
        for iteration in (1, 2):
            explore(
                RisingExploration(2, 2),
                make_context(benchmark, policy, journal, iteration=iteration),
            )
            before = gatherer.refresh()
            assert before > 0
            head = gatherer.live()
            assert [group["name"] for group in head["runs"][0]["groups"]] == ["1", "2"][:iteration]
            assert gatherer.refresh() == before
    whole, chunks = gathered(tmp_path)
    for entry, (_, tree, text) in zip(head["tasks"], trees(whole, chunks), strict=True):
        one = unpack(gatherer.chunk(entry["chunk"]))
        assert one["tasks"][0]["usage"] == tree["usage"]
        assert one["strings"][one["tasks"][0]["nodes"][1]["step"][0]] == text(
            tree["nodes"][1]["step"][0]
        )
    assert gatherer.chunk("999-1") is None
    assert gatherer.chunk("../config.toml") is None


def test_a_recycled_candidate_has_the_step_of_the_rollout_that_it_came_from(tmp_path):
    run = make_run(tmp_path / "run", FOREST, strategy=AdaptiveExploration(), evaluated=())
    head, chunks = gathered(run.path)
    with Journal(run.journal, read_only=True) as journal:
        live = finished_trees(journal, "1/")
    recycled = 0
    for entry, tree, text in trees(head, chunks):
        nodes = {node.id: node for node in live[f"1/{entry['id']}"].root.walk()}
        assert nodes.keys() == {node["id"] for node in tree["nodes"]}
        for node in tree["nodes"][1:]:
            grown = nodes[node["id"]]
            assert node["recycled"] is grown.recycled is True
            assert "usage" not in node
            assert text(node["step"][0]) == grown.origin.next.action.content
            assert node["estimate"]["outcomes"] == list(grown.estimate.outcomes)
            recycled += 1
    assert recycled > 20


def test_pairs_are_shown_while_their_iteration_is_explored(tmp_path, toy):
    """Rows as the tasks finish, then those of the finished file; a damaged one is refused."""
    (tmp_path / "config.toml").write_bytes((toy.path / "config.toml").read_bytes())
    (tmp_path / "journal.jsonl").write_bytes(toy.journal.read_bytes())
    folder, rows = RunFolder.open(tmp_path), toy.pairs(1).read_bytes().splitlines(keepends=True)
    gatherer, so_far = Gatherer([tmp_path]), folder.pairs_so_far(1)
    assert sum(entry["pairs"] for entry in gatherer.live()["tasks"]) == 0
    for count in (3, 7):
        before = gatherer.refresh()
        so_far.write_bytes(b"".join(rows[:count]) + rows[count][:50])
        assert gatherer.refresh() > before
        assert sum(entry["pairs"] for entry in gatherer.live()["tasks"]) == count
    folder.pairs(1).write_bytes(b"".join(rows))
    so_far.unlink()
    gatherer.refresh()
    assert sum(entry["pairs"] for entry in gatherer.live()["tasks"]) == len(rows)
    whole, _ = gathered(tmp_path)
    assert whole["tasks"] == gathered(toy.path)[0]["tasks"]
    folder.pairs(1).write_bytes(b"no row\n")
    with pytest.raises(DataError, match=r"pairs-1\.jsonl: a row is damaged"):
        gathered(tmp_path)


def test_several_runs_are_compared_by_task(tmp_path, toy):
    other = make_run(tmp_path / "other", FOREST, seed=3, evaluated=("sft", "eto-1"))
    head, _ = gathered(toy.path, other.path)
    assert [run["name"] for run in head["runs"]] == ["toy", "other"]
    assert [(row["run"], row["label"], row["n"]) for row in head["between"]] == [(1, "eto-1", 12)]
    assert {entry["run"] for entry in head["tasks"]} == {0, 1}


def test_a_chunk_is_closed_when_it_is_full(toy, monkeypatch):
    monkeypatch.setattr("rro.report.pack.CHUNK_CHARACTERS", 20)
    head, chunks = gathered(toy.path)
    # one for each tree, and one for the episodes of each evaluated task
    assert len(chunks) == 2 * len(FOREST)
    assert len(list(trees(head, chunks))) == len(FOREST)


def test_a_damaged_journal_is_named(tmp_path, toy):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "journal.jsonl").write_bytes(toy.journal.read_bytes()[:5000] + b"}\n")
    with pytest.raises(DataError, match=r"journal\.jsonl, line"):
        Gatherer([tmp_path])
