"""From journals to pages: figures come from the records, each text is stored once, and nothing
that an agent wrote is more than text."""

import base64
import hashlib
import json
import re
import subprocess
import sys

import pytest
from fakes import TreeBenchmark, explore, finished_trees, fresh_journal, make_context
from report_toys import HOSTILE, TREE, Long, hostile_trees, make_run, speaker

from rro.cli.main import main
from rro.errors import DataError, UsageError
from rro.exploration.explorer import summarise
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rising import RisingExploration
from rro.exploration.strategies.whole import RejectionSampling, TrajectoryExploration
from rro.policies.scripted import ScriptedPolicy
from rro.report import page
from rro.report.gather import Gatherer
from rro.report.pack import pack, unpack
from rro.report.tables import write_tables
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.types import Message, Source, Step, StopReason, Trajectory, Usage

FOREST = {f"task/{number}": TREE for number in range(12)}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "toy", FOREST)


def gathered(*folders):
    """The head, and the chunks decoded."""
    with Gatherer(folders) as gatherer:
        head, chunks = gatherer.whole()
    return head, [unpack(chunk) for chunk in chunks]


def trees(head, chunks):
    """(entry of the list, tree, text of a number) of each task."""
    for entry in head["tasks"]:
        chunk = chunks[int(entry["chunk"])]
        yield entry, chunk["tasks"][entry["place"]], chunk["strings"].__getitem__


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
    IterativeStepRefinement(EXPERTS, 2),
    TrajectoryExploration(EXPERTS),
    AdaptiveExploration(),
    RejectionSampling(0.5, 3),
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


def test_no_message_is_more_than_text_in_the_file(tmp_path):
    run = make_run(tmp_path / "run", hostile_trees())
    head, chunks = gathered(run.path)
    shown = {
        text(i)
        for _, tree, text in trees(head, chunks)
        for node in tree["nodes"][1:]
        for i in node["step"][:2]
    }
    assert any(HOSTILE[0].replace(" ", "_") in text for text in shown)
    with Gatherer([run.path]) as gatherer:
        written = page.write_report(*gatherer.whole(), tmp_path / "report.html").read_text()
    assert "owned" not in written
    blocks = re.findall(r"<script[^>]*>(.*?)</script>", written, re.S)
    assert (
        len(blocks) == written.count("<script") == 1 + 1 + len(chunks)
    )  # the head, the chunks, the script
    assert all(re.fullmatch("[A-Za-z0-9+/=]+", block) for block in blocks[:-1])


def test_the_page_allows_its_own_script_and_style_alone(toy):
    written = page.single_page(*_whole(toy))
    [policy] = re.findall('http-equiv="Content-Security-Policy" content="([^"]+)"', written)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.keys() == {
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "base-uri",
        "form-action",
    }
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'",) * 3
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", written, re.S)[-1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", written)


def test_the_script_never_parses_text_as_html():
    [script] = re.findall("<script>(.*)</script>", page.live_page(), re.S)
    assert len(script) > 10_000
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "</script",
        "<!--",
    ):
        assert word not in script
    assert 'setAttribute("style"' not in script


def _whole(run):
    with Gatherer([run.path]) as gatherer:
        return gatherer.whole()


def test_500_tasks_fit_in_one_file(tmp_path):
    run = make_run(
        tmp_path / "run",
        {f"task/{i}": TREE for i in range(500)},
        environment=Long,
        strategy=RisingExploration(2, 2),
    )
    written = page.write_report(*_whole(run), tmp_path / "report.html")
    assert written == tmp_path / "report.html"
    assert run.journal.stat().st_size > 5_000_000 > written.stat().st_size


def test_what_is_too_large_for_one_file_becomes_a_folder(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    head, chunks = _whole(toy)
    written = page.write_report(head, chunks, tmp_path / "report.html")
    assert written == tmp_path / "report" / "index.html"
    files = sorted(file.name for file in (tmp_path / "report" / "data").iterdir())
    assert files == [f"chunk-{number}.js" for number in range(len(chunks))]
    assert (
        tmp_path / "report" / "data" / "chunk-0.js"
    ).read_text() == f'rroChunk("0","{chunks[0]}");\n'
    text = written.read_text()
    [nonce] = re.findall('<script nonce="([^"]+)">', text)
    assert f"'nonce-{nonce}'" in text


def test_a_chunk_is_closed_when_it_is_full(toy, monkeypatch):
    monkeypatch.setattr("rro.report.pack.CHUNK_CHARACTERS", 20)
    head, chunks = gathered(toy.path)
    assert len(chunks) == len(FOREST)
    assert len(list(trees(head, chunks))) == len(FOREST)


def test_a_number_that_json_has_not_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        pack([float("nan")])


def test_the_command_writes_beside_the_run_and_says_where(capsys, toy):
    assert main(["report", str(toy.path)]) == 0
    assert capsys.readouterr().out.strip() == str(toy.path / "report.html")
    assert (toy.path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [["report", "nowhere"], ["view", "nowhere"]])
def test_no_run_folder(capsys, arguments):
    assert main(arguments) == 2
    assert "no run folder" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the report"):
        page.write_report(*_whole(toy), tmp_path / "file" / "report.html")
    with pytest.raises(UsageError, match="cannot write the tables"):
        write_tables(_whole(toy)[0], tmp_path / "file" / "tables")


def test_a_damaged_journal_is_named(tmp_path, toy):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "journal.jsonl").write_bytes(toy.journal.read_bytes()[:5000] + b"\x00\n")
    with pytest.raises(DataError, match=r"journal\.jsonl, line"):
        Gatherer([tmp_path])


def test_plots_are_files(tmp_path, toy):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (rro[plots])")
    other = make_run(tmp_path / "other$x$", FOREST, seed=3)
    head, _ = gathered(toy.path, other.path)
    from rro.report.plots import write_plots

    written = write_plots(head, tmp_path / "plots")
    stems = {path.stem for path in written}
    assert stems == {
        "rewards",
        "differences",
        "candidates-per-step",
        "rising-by-stage",
        "process-reward",
        "reward-against-cost",
    }
    assert {path.suffix for path in written} == {".svg", ".png"}
    assert "other$x$" in (tmp_path / "plots" / "rewards.svg").read_text()
    before = (tmp_path / "plots" / "rewards.svg").read_bytes()
    write_plots(head, tmp_path / "plots")
    assert (tmp_path / "plots" / "rewards.svg").read_bytes() == before


def test_plots_without_matplotlib_fail_before_the_work(tmp_path, toy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = tmp_path / "report.html"
    arguments = ["report", str(toy.path), "--out", str(report), "--plots", str(tmp_path / "plots")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "rro: --plots needs matplotlib: pip install 'rro[plots]'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_report_needs_no_trainer(toy):
    code = (
        "import sys; from rro.cli.main import main; "
        f"main(['report', {str(toy.path)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
