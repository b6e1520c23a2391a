"""One table in three forms: on a terminal no line is too long and no cell cut, Markdown cells stay
in their cells, CSV has every digit."""

import csv
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_toys import TREE, make_run
from rich.cells import cell_len

from rro.errors import printable
from rro.evaluation.compare import compare
from rro.evaluation.results import collect_results
from rro.report.gather import Gatherer
from rro.report.table_forms import Column, Table, comma_separated, markdown, shown, terminal
from rro.report.tables import print_comparison, print_results, rewards, write_tables
from rro.runs.journal import Journal

WIDTH = 60


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    forest = {f"task/{number}": TREE for number in range(12)}
    return make_run(tmp_path_factory.mktemp("runs") / "toy", forest)


class Bench:
    """What collect_results asks of a benchmark."""

    success_reward, reward_range = 0.9, (0.0, 1.0)

    def provenance(self):
        return {"trees": 12}


def results_of(run, **changes):
    with Journal(run.journal, read_only=True) as journal:
        results = collect_results(journal, run.config, Bench(), ["sft", "rro-1"], {"sampled": 12})
    usage = {"policy_calls": 14067, "generated_tokens": 62659, "prompt_tokens": 2222176}
    explored = {"pairs": 849, "candidates_per_step": 2.13, "usage": {**usage, "cost": 1.5}}
    results["stages"] = {"sft": {"seconds": 91.2}, "explore-1": {"seconds": 1037.4, **explored}}
    return {**results, **changes}


def greedy_too(results):
    rows = [
        row | {"mode": mode} for row in results["evaluations"] for mode in ("sampled", "greedy")
    ]
    return {**results, "evaluations": rows}


def printed(capsys, monkeypatch, width, function, *arguments):
    monkeypatch.setenv("COLUMNS", str(width))
    function(*arguments)
    return capsys.readouterr().out


def holds(text, cell):
    """Whether a cell stands whole in a text (words of it may be on lines of their own)."""
    return re.search(r"\s+".join(map(re.escape, cell.split())), text) is not None


@pytest.mark.parametrize("width", [40, WIDTH, 80, 200])
def test_results_fit_the_terminal_and_no_cell_is_cut(toy, capsys, monkeypatch, width):
    results = greedy_too(results_of(toy, name="quickstart", strategy="adaptive"))
    text = printed(capsys, monkeypatch, width, print_results, results)
    assert max(map(cell_len, text.splitlines())) <= width
    for row in results["evaluations"]:
        for cell in (row["label"], row["mode"], shown(row["reward"]), shown(row["success"])):
            assert holds(text, cell)
    for number in ("849", "2.13", "14,067", "62,659", "2,222,176", "1.50", "91", "1,037"):
        assert holds(text, number)
    assert shown(results["differences"][0]) in text


def test_many_rounds_are_summed_up(toy, capsys, monkeypatch):
    results = results_of(toy)
    stages = {"sft": {"seconds": 91.2}}
    for number in range(1, 33):
        usage = {"policy_calls": 100 + number, "generated_tokens": 1000, "prompt_tokens": 7}
        explored = {"pairs": 0, "candidates_per_step": 0.0, "usage": usage}
        stages |= {
            f"explore-{number}": {"seconds": 2.0, **explored},
            f"optimise-{number}": {"seconds": 3.0},
        }
    stages["evaluate-rro-32"] = {"seconds": 5.0}
    text = printed(capsys, monkeypatch, 100, print_results, {**results, "stages": stages})
    lines = [line.split() for line in text.splitlines()]
    assert ["explore-1", "to", "32", "3,728", "32,000", "224"] in lines
    assert ["explore-1", "to", "32", "64"] in lines
    assert ["optimise-1", "to", "32", "96"] in lines
    assert ["evaluate-rro-32", "5"] in lines
    assert "explore-3 " not in text
    assert "pairs" not in text


@pytest.mark.parametrize("width", [WIDTH, 80, 200])
@pytest.mark.parametrize("name", ["rro", "webshop-1k-tiny-20261127-024720", "x" * 150])
def test_a_comparison_fits_the_terminal(toy, capsys, monkeypatch, name, width):
    runs = [results_of(toy, name="first"), results_of(toy, name=name, strategy="adaptive")]
    text = printed(capsys, monkeypatch, width, print_comparison, runs, compare(runs))
    assert max(map(cell_len, text.splitlines())) <= width
    for cell in ("first", shown(runs[0]["evaluations"][-1]["reward"]), "0.000"):
        assert cell in text
    assert name in re.sub(r"\s", "", text)


CELLS = {
    "key": st.text("abc äß汉-", max_size=70),
    "number": st.none() | st.integers(0, 10**12) | st.floats(-1e9, 1e9),
    "interval": st.none()
    | st.tuples(*[st.floats(-99, 99)] * 3).map(
        lambda ends: dict(zip(("mean", "low", "high"), ends, strict=True))
    ),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=7))
    columns = [Column(f"the_column_{number}", kind) for number, kind in enumerate(kinds)]
    rows = draw(st.lists(st.tuples(*[CELLS[kind] for kind in kinds]), min_size=1, max_size=4))
    return Table("name", draw(st.text("abc ", max_size=90)), columns, rows)


@given(tables(), st.sampled_from([30, WIDTH, 80]))
def test_law_no_line_is_too_long_and_every_cell_is_there(table, width):
    text = terminal(table, width)
    assert max(map(cell_len, text.splitlines()), default=0) <= width
    squeezed = re.sub(r"\s", "", text)
    for row in table.rows:
        for cell in row:
            assert re.sub(r"\s", "", shown(cell)) in squeezed


def test_what_is_the_same_in_every_row_stands_once():
    columns = [Column("run", "key"), Column("mode", "key"), Column("episodes"), Column("steps")]
    table = Table("t", "title", columns, [["a", "greedy", 12, 1.0], ["b", "greedy", 12, 1.0]])
    assert terminal(table, WIDTH).splitlines() == [
        "title",
        "mode greedy, episodes 12",
        "",
        "run  steps",
        "---  -----",
        "a     1.00",
        "b     1.00",
    ]


def test_a_cost_stands_in_every_row():
    """Once below the title it would read as the sum."""
    columns = [Column("stage", "key"), Column("policy_calls", "cost")]
    table = Table("t", "title", columns, [["explore-1", 128], ["explore-2", 128]])
    shown = [line.split() for line in terminal(table, WIDTH).splitlines()]
    assert shown[0] == ["title"]
    assert shown[-2:] == [["explore-1", "128"], ["explore-2", "128"]]


def test_a_table_that_is_too_wide_is_split_and_its_keys_repeated():
    columns = [Column("run", "key"), *(Column(f"the_{name}_column") for name in "abc")]
    table = Table("t", "title", columns, [["one", 1_000_000, 2, 3], ["two", 4, 5_000_000, 6]])
    assert terminal(table, 24).splitlines() == [
        "title",
        "",
        "         the a   the c",
        "run     column  column",
        "---  ---------  ------",
        "one  1,000,000       3",
        "two          4       6",
        "",
        "         the b",
        "run     column",
        "---  ---------",
        "one          2",
        "two  5,000,000",
    ]


def test_an_unknown_success_is_left_blank():
    reward = {"mean": 0.5, "low": None, "high": None}
    row = {"label": "sft", "mode": "sampled", "reward": reward, "success": None, "steps": 2.0}
    row |= {"invalid_actions": 0.0, "episodes": 1, "failed": None, "stops": {}}
    table = rewards([{"name": "r", "strategy": "rro", "evaluations": [row]}])
    assert "success" not in terminal(table, WIDTH)
    assert "0.500 " in terminal(table, WIDTH)
    assert "[" not in terminal(table, WIDTH)
    cells = dict(zip(*csv.reader(comma_separated(table).splitlines()), strict=True))
    assert (cells["reward"], cells["reward_low"], cells["success"]) == ("0.5", "", "")
    assert markdown(table).splitlines()[2].count("|") == len(table.columns) + 1


def test_episodes_that_were_cut_off_are_counted_apart():
    reward = {"mean": 0.5, "low": None, "high": None}
    row = {"label": "sft", "mode": "sampled", "reward": reward, "success": None, "steps": 2.0}
    stops = {"terminal": 5, "step_limit": 2, "context_overflow": 1, "failed": 0}
    row |= {"invalid_actions": 0.0, "episodes": 8, "failed": 0, "stops": stops}
    table = rewards([{"name": "r", "strategy": "rro", "evaluations": [row]}])
    cells = dict(zip(*csv.reader(comma_separated(table).splitlines()), strict=True))
    assert (cells["episodes"], cells["cut_off"]) == ("8", "3")


@given(st.text())
def test_law_no_text_controls_the_terminal(text):
    table = Table("t", text, [Column("task", "key"), Column("n")], [[text, 1], ["b", 2]])
    shown = terminal(table, WIDTH)
    assert printable(shown) == shown
    assert "\x1b" not in shown


def test_tables_for_papers(tmp_path, toy):
    with Gatherer([toy.path]) as gatherer:
        head, _ = gatherer.whole()
    head["runs"][0]["name"] = "a|b\n[c](d)"
    names = {path.name for path in write_tables(head, tmp_path)}
    stems = ("rewards", "differences", "exploration")
    assert names == {f"{table}.{kind}" for table in stems for kind in ("md", "csv")}
    with (tmp_path / "differences.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    [difference] = head["runs"][0]["differences"]
    assert row["run"] == head["runs"][0]["name"]
    assert float(row["difference"]) == difference["mean"]
    # 12 tasks are too few for an interval
    assert (row["difference_low"], row["difference_high"]) == ("", "")
    assert (difference["low"], difference["high"]) == (None, None)
    assert (row["tasks"], row["tasks_left_out"]) == ("12", "0")
    text = (tmp_path / "differences.md").read_text()
    assert r"| a\|b \[c\](d) |" in text
    assert len(text.splitlines()) == 3
