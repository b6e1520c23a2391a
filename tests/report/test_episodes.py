"""The evaluated episodes of a task beside each other, and which rewards are possible."""

import json

import pytest
from report_toys import FOREST, gathered, make_run

from rro.errors import DataError
from rro.evaluation.results import RewardScale, keep_scale, kept_scale
from rro.evaluation.statistics import Interval
from rro.report.gather import Gatherer
from rro.report.pack import unpack
from rro.runs.journal import Journal


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "toy", FOREST)


def plays_of(entry, chunks):
    chunk = chunks[int(entry["chunk"])]
    return chunk["tasks"][entry["place"]], chunk["strings"].__getitem__


def test_every_policy_and_mode_is_there_with_what_was_said(toy):
    head, chunks = gathered(toy.path)
    assert {entry["id"] for entry in head["played"]} == set(FOREST)
    with Journal(toy.journal, read_only=True) as journal:
        for entry in head["played"]:
            task, text = plays_of(entry, chunks)
            assert [text(i) for _, i in task["opening"]][-1] == entry["text"]
            assert [(play["label"], play["mode"]) for play in task["plays"]] == [
                ("sft", "sampled"),
                ("rro-1", "sampled"),
            ]
            for play in task["plays"]:
                key = f"{play['label']}/{play['mode']}/{entry['id']}/{play['number']}"
                record = journal.get("evaluation", key)
                assert play["reward"] == record["reward"]
                assert [[text(step[0]), text(step[1])] for step in play["steps"]] == [
                    [step["action"]["content"], step["observation"]] for step in record["steps"]
                ]
                assert [play["label"], play["mode"], play["reward"]] in entry["rewards"]


def test_they_can_be_watched_as_they_come(toy):
    with Gatherer([toy.path]) as gatherer:
        head = gatherer.live()
        entry = head["played"][3]
        chunk = unpack(gatherer.chunk(entry["chunk"]))
        assert len(chunk["tasks"][0]["plays"]) == 2
        assert gatherer.live()["played"] == head["played"]
        assert gatherer.chunk("e999-1") is None
        assert gatherer.chunk("e") is None


def test_a_run_without_openings_shows_its_episodes(tmp_path):
    run = make_run(tmp_path / "run", FOREST)
    lines = run.journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["kind"] != "opening"]
    assert len(lines) - len(kept) == len(FOREST)
    run.journal.write_text("".join(kept))
    head, chunks = gathered(run.path)
    task, _ = plays_of(head["played"][0], chunks)
    assert (task["opening"], len(task["plays"])) == ([], 2)


@pytest.mark.parametrize(
    ("kind", "change"),
    [("evaluation", {"steps": 3}), ("opening", {"messages": [{"role": 1}]})],
)
def test_a_damaged_record_is_named_with_its_line(tmp_path, kind, change):
    run = make_run(tmp_path / "run", FOREST)
    lines = run.journal.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == kind)
    lines[at] = json.dumps({**json.loads(lines[at]), **change})
    run.journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"journal\.jsonl, line {at + 1}: damaged record"):
        gathered(run.path)


class Bench:
    """What `keep_scale` asks of a benchmark."""

    def __init__(self, low, high):
        self.reward_range, self.success_reward = (low, high), 0.9


def test_the_scale_of_rewards_is_kept_once_and_bounds_what_is_shown(tmp_path):
    run = make_run(tmp_path / "run", FOREST, evaluated=())
    free = list(ends(*gathered(run.path)))
    with Journal(run.journal) as journal:
        assert kept_scale(journal).range == (-float("inf"), float("inf"))
        keep_scale(journal, Bench(0.0, 0.9))
        keep_scale(journal, Bench(0.0, 7.0))
        assert kept_scale(journal) == RewardScale(0.0, 0.9, 0.9)
    bounded = list(ends(*gathered(run.path)))
    assert (min(free) < 0.0, max(free) > 0.9) == (True, True)
    assert bounded == [min(max(end, 0.0), 0.9) for end in free]


def ends(head, chunks):
    """The ends of the intervals of all process rewards."""
    for entry in head["tasks"]:
        for node in chunks[int(entry["chunk"])]["tasks"][entry["place"]]["nodes"]:
            estimate = node["estimate"]
            if estimate and estimate["low"] is not None:
                yield from (estimate["low"], estimate["high"])


def test_an_endless_range_has_no_ends(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        keep_scale(journal, Bench(-float("inf"), 2.0))
        assert kept_scale(journal) == RewardScale(None, 2.0, 0.9)


@pytest.mark.parametrize(
    ("interval", "clipped"),
    [
        (Interval(0.9, 0.7, 1.1, 30), Interval(0.9, 0.7, 1.0, 30)),
        (Interval(0.1, -0.1, 0.3, 30), Interval(0.1, 0.0, 0.3, 30)),
        (Interval(0.5, 0.4, 0.6, 30), Interval(0.5, 0.4, 0.6, 30)),
        # too few tasks, and a mean that the range does not allow
        (
            Interval(0.5, -float("inf"), float("inf"), 3),
            Interval(0.5, -float("inf"), float("inf"), 3),
        ),
        (Interval(4.0, 3.0, 5.0, 30), Interval(4.0, 3.0, 5.0, 30)),
    ],
)
def test_an_interval_ends_where_values_do(interval, clipped):
    assert interval.within(0.0, 1.0) == clipped
