"""The thresholds of rising steps: how far off they are, and one that is estimated anew."""

import pytest
from fakes import Counted, TreeBenchmark, fresh_journal, grow, make_context, uniform

from rro.exploration.explorer import summarise
from rro.exploration.strategies.rising import RisingExploration

# Every first action leads to a gamble that half of its branches win.
GAMBLE = {f"x{n}": float(n % 2) for n in range(10)}
TREE = {f"go{n}": GAMBLE for n in range(8)}


def explored(folder, **options):
    policy = Counted(uniform())
    trees = []
    with fresh_journal(folder) as journal:
        tasks = {f"t{n}": TREE for n in range(80)}
        context = make_context(TreeBenchmark(tasks), policy, journal)
        for task in context.benchmark.tasks():
            trees.append(grow(RisingExploration(3, 3, **options), context, task))
    return trees


@pytest.mark.parametrize("threshold", ["chosen", "fresh"])
def test_process_rewards_that_were_chosen_for_being_high_are_too_high(tmp_path, threshold):
    """All candidates above the gamble are worth 1/2, so any excess is selection."""
    trees = explored(tmp_path, threshold=threshold)
    chosen = [node for tree in trees for node in tree.committed() if node.stop is None]
    excess = sum(node.estimate.mean - 0.5 for node in chosen) / len(chosen)
    bias = summarise(trees).threshold_bias
    assert excess > 0.05
    assert abs(bias - excess) < 0.17  # three standard errors


def test_a_fresh_threshold_has_rollouts_of_its_own(tmp_path):
    for tree in explored(tmp_path, threshold="fresh")[:5]:
        *before, _ = tree.committed()
        assert all(sorted(node.rollouts) == list(range(6)) for node in before)
        assert all(node.estimate.n == 3 for node in before)
