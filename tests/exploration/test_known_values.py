"""Strategies on random trees whose values are known exactly (benchmarks/trees.py)."""

from dataclasses import replace

import pytest

from benchmarks import exploration as measured
from benchmarks.trees import SHAPES, Forest
from rro.types import StepResult


def sums(shape, name, seeds=4, tasks=6, concurrency=16):
    make = measured.strategies()[name]
    counts = [
        measured.explore(Forest(shape, tasks, seed), make, seed, concurrency)
        for seed in range(seeds)
    ]
    return {
        key: sum(getattr(c, key) for c in counts)
        for key in ("calls", "pairs", "correct", "tasks", "end", "start")
    }


@pytest.mark.parametrize("name", ["shallow", "flat, binary", "two actions"])
def test_pairs_are_right_and_cost_a_fraction_of_the_papers(name):
    shape = next(shape for shape in SHAPES if shape.name == name)
    paper, ours = sums(shape, "rro"), sums(shape, "adaptive")
    assert ours["correct"] / ours["pairs"] > 0.85
    assert ours["pairs"] > 0.5 * ours["tasks"]
    assert ours["calls"] / ours["correct"] < 0.5 * paper["calls"] / paper["correct"]
    assert ours["end"] > ours["start"]


def test_the_trees_hold_what_they_are_said_to():
    for shape in SHAPES:
        forest = Forest(replace(shape, width=30), 1, 5)
        (root,) = forest.trees.values()
        again = Forest(replace(shape, width=30), 1, 5).trees["tree-0"]
        assert (root.value, root.best) == (again.value, again.best)
        assert shape.range[0] <= root.value <= root.best <= shape.range[1]
        assert abs(sum(action.odds for action in root.actions) - 1) < 1e-9
        expert = forest.expert_episode("tree-0")
        walk = forest.make()
        walk.reset(forest.tasks()[0])
        results = [walk.step(step.action) for step in expert.steps]
        assert results[-1] == StepResult(expert.steps[-1].observation, root.best, True)


def test_a_values_estimate_by_play_is_the_value():
    forest = Forest(replace(SHAPES[4], width=30), 1, 2)
    (tree,) = measured.grow(forest, measured.RejectionSampling(600), 0).values()
    rewards = [episode.reward for episode in tree.episodes.values()]
    assert abs(sum(rewards) / 600 - forest.trees["tree-0"].value) < 0.06  # three standard errors


@pytest.mark.parametrize("name", measured.strategies())
def test_the_same_pairs_at_any_concurrency(name):
    forest, make = Forest(SHAPES[4], 5, 1), measured.strategies()[name]
    one, many = (measured.explore(forest, make, 1, concurrency) for concurrency in (1, 64))
    assert one == many
