"""The curves of a run's trainings, from metrics.jsonl."""

import json

from report_toys import FOREST, gathered, make_run

from rro.report.training import trainings_of


def written(folder, *records):
    file = folder / "metrics.jsonl"
    lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
    file.write_text("\n".join(lines) + "\n")
    return file


def record(stage, step, iteration=0, **figures):
    return {"iteration": iteration, "stage": stage, "step": step, "epoch": 1, **figures}


def test_each_stage_has_a_curve_for_each_figure(tmp_path):
    file = written(
        tmp_path,
        record("sft", 2, loss=3.0, learning_rate=0.1),
        record("sft", 4, loss=2.0, learning_rate=0.2),
        record("dpo", 1, 1, loss=0.7, **{"rewards/margins": 0.1}),
    )
    sft, dpo = trainings_of(file)
    assert sft == {
        "stage": "sft",
        "rounds": [0],
        "curves": {"loss": [(2, 3.0), (4, 2.0)], "learning_rate": [(2, 0.1), (4, 0.2)]},
    }
    assert dpo["curves"] == {"loss": [(1, 0.7)], "rewards/margins": [(1, 0.1)]}


def test_rounds_go_on_from_one_another_and_a_resumed_step_counts_once(tmp_path):
    file = written(
        tmp_path,
        record("policy_gradient", 1, 1, loss=1.0),
        record("policy_gradient", 2, 1, loss=9.0),
        record("policy_gradient", 2, 1, loss=2.0),
        record("policy_gradient", 1, 2, loss=3.0),
    )
    [training] = trainings_of(file)
    assert training["curves"]["loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert training["rounds"] == [0, 2]


def test_what_cannot_be_read_is_left_out(tmp_path):
    nan = float("nan")
    file = written(
        tmp_path,
        "{",
        "[1]",
        '{"stage": "sft", "step": "x"}',
        record("sft", 1, loss=nan, note="text", grad_norm=1e999, entropy=2.0),
        '{"stage": "sft", "step": 2, "lo',
    )
    [training] = trainings_of(file)
    assert training["curves"] == {"entropy": [(1, 2.0)]}
    assert trainings_of(tmp_path / "none.jsonl") == []


def test_a_long_curve_is_thinned_and_keeps_its_last_point(tmp_path):
    records = [record("sft", step, loss=step / 10) for step in range(1, 1001)]
    [training] = trainings_of(written(tmp_path, *records))
    curve = training["curves"]["loss"]
    assert len(curve) <= 201
    assert (curve[0], curve[-1]) == ((1, 0.1), (1000, 100.0))


def test_the_page_has_them(tmp_path):
    run = make_run(tmp_path / "run", FOREST)
    written(run.path, record("sft", 1, loss=1.0))
    [training] = gathered(run.path)[0]["runs"][0]["trainings"]
    assert training["curves"] == {"loss": [(1, 1.0)]}
