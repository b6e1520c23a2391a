"""The page of a table of results: from the file that `benchmarks.results` writes."""

import json

import pytest

from rro.cli.main import main
from rro.errors import DataError
from rro.report.pack import unpack
from rro.report.results_page import results_head

INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 20}
ROW = {
    "environment": "shop",
    "method": "pairs",
    "policy": "last",
    "seeds": 2,
    "sampled_reward": INTERVAL,
    "greedy_reward": {**INTERVAL, "low": None, "high": None},
    "generated_tokens": 1500.5,
}
CURVE = {"seed": 1, "played": [[0, 0.3], [900, 0.4]], "evaluated": [[0, "sampled", 0.3]]}


def results(**changes):
    return {
        "plan": {"methods": {"pairs": {}, "successes": {}}, "first": None},
        "settings": {"shop pairs": ["dpo.epochs=2"]},
        "missing": ["shop successes seed 2"],
        "rows": [ROW],
        "curves": {"shop": {"pairs": [CURVE]}},
        **changes,
    }


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "table" / "results.json"
    path.parent.mkdir()
    path.write_text(json.dumps(results()))
    return path


def test_a_row_is_sorted_into_intervals_and_costs(file):
    shown = results_head(file)["results"]
    [row] = shown["rows"]
    assert row["intervals"]["sampled_reward"] == INTERVAL
    assert row["intervals"]["greedy_reward"]["low"] is None
    assert row["costs"] == {"generated_tokens": 1500.5}
    assert (shown["name"], shown["first"]) == ("table", "pairs")
    assert shown["curves"]["shop"]["pairs"][0]["played"] == [[0, 0.3], [900, 0.4]]
    assert shown["missing"] == ["shop successes seed 2"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rows": 3}, "rows"),
        ({"rows": [{**ROW, "method": 3}]}, "method"),
        ({"rows": [{**ROW, "sampled_reward": {"mean": "x"}}]}, "mean"),
        ({"rows": [{**ROW, "seconds": "long"}]}, "long"),
        ({"curves": {"shop": {"pairs": [{**CURVE, "played": [[1]]}]}}}, "played"),
        ({"curves": {"shop": {"pairs": [{**CURVE, "played": [[1, float("nan")]]}]}}}, "played"),
    ],
)
def test_a_file_of_another_form_is_named(file, changes, problem):
    file.write_text(json.dumps(results(**changes)))
    with pytest.raises(DataError, match=rf"results\.json: no table of results.*{problem}"):
        results_head(file)


def test_the_command_writes_the_page_beside_the_file(file, capsys):
    assert main(["report", "--results", str(file)]) == 0
    page = file.with_suffix(".html")
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    start = text.index('id="head">') + len('id="head">')
    assert unpack(text[start : text.index("<", start)])["results"]["rows"][0]["method"] == "pairs"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--results", "FILE", "run"], "--results makes a page of its own"),
        (["--results", "FILE", "--plots", "figures"], "--results makes a page of its own"),
        (["--results", "nowhere.json"], "nowhere.json: No such file"),
        ([], "name a run folder"),
    ],
)
def test_what_is_not_meant_is_refused(file, capsys, words, problem):
    assert main(["report", *(str(file) if word == "FILE" else word for word in words)]) == 2
    assert problem in capsys.readouterr().err
