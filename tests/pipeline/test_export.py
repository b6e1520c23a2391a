"""What a credit gives on a run's trees, as files."""

import json
from dataclasses import replace

import pytest
from datasets import load_dataset
from fakes import TreeBenchmark
from report_toys import FOREST, make_rounds, make_run

from rro.cli.main import main
from rro.config import CreditConfig
from rro.errors import UsageError
from rro.pipeline.export import export_rows
from rro.pipeline.run import open_run


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    return make_rounds(tmp_path_factory.mktemp("runs") / "rounds", FOREST, count=2)


def exported(folder, credit, file=None, iteration=None, **options):
    """The file and its rows."""
    section = CreditConfig(name=credit, options=options)
    folder = replace(folder, config=folder.config.model_copy(update={"credit": section}))
    benchmark = TreeBenchmark(FOREST)
    benchmark.success_reward = 0.5
    with open_run(folder, benchmark) as run:
        file = export_rows(run, iteration, file)
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def columns(file):
    rows = load_dataset(
        "parquet",
        data_files=str(file.with_suffix(".parquet")),
        split="train",
        cache_dir=str(file.parent / "cache"),
    )
    return set(rows.column_names), len(rows)


@pytest.mark.parametrize(
    ("credit", "names"),
    [
        ("step_labels", {"prompt", "completions", "labels", "reward", "outcomes", "before"}),
        ("successes", {"messages", "sources"}),
        ("anchor_advantages", {"messages", "advantages", "token_ids", "logprobs"}),
    ],
)
def test_rows_are_lines_and_a_table(rounds, credit, names):
    file, rows = exported(rounds, credit)
    assert file == rounds.path / f"{credit}.jsonl"
    assert rows
    assert names <= set(rows[0])
    assert columns(file) == (set(rows[0]), len(rows))


def test_one_round_or_all(rounds, tmp_path):
    parts = [exported(rounds, "step_labels", tmp_path / f"{n}.jsonl", n)[1] for n in (1, 2)]
    _, rows = exported(rounds, "step_labels", tmp_path / "all.jsonl")
    assert rows == parts[0] + parts[1]
    assert {row["iteration"] for row in parts[1]} == {2}


def test_options_are_those_of_the_credit(rounds, tmp_path):
    _, rows = exported(rounds, "step_labels", tmp_path / "few.jsonl", min_outcomes=3)
    assert rows
    assert all(row["n"] >= 3 or row["exact"] for row in rows)


def test_pairs_are_those_that_the_run_wrote(tmp_path):
    run = make_run(tmp_path / "run", FOREST)
    file, _ = exported(run, "pairs")
    assert sorted(file.read_text().splitlines()) == sorted(run.pairs(1).read_text().splitlines())


def test_nothing_explored(rounds, tmp_path):
    with pytest.raises(UsageError, match="nothing of iteration 3 is explored yet"):
        exported(rounds, "step_labels", tmp_path / "none.jsonl", 3)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nope"], "unknown credit 'nope'"),
        (["step_labels", "labels=success"], "did you mean label?"),
        (["--out", "."], "--out . is a folder: name a file"),
        (["--out", "odd.parquet"], "--out odd.parquet: name the JSON lines; Parquet comes beside"),
        (["label=success"], "label=success: name the credit whose option it is before it"),
    ],
)
def test_a_wrong_name_is_told(rounds, capsys, words, sentence):
    assert main(["export", str(rounds.path), *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("credit", ["outcome_pairs", "expert_pairs"])
def test_a_credit_of_whole_episodes_is_refused_where_none_are_played(rounds, credit):
    sentence = "strategy group plays none: explore with one that does, as eto and ipr do"
    with pytest.raises(UsageError, match=sentence):
        exported(rounds, credit)
    assert not list(rounds.path.glob(f"{credit}*"))
