"""A tree small enough to work out by hand, explored with planned proposals and rollouts."""

from fakes import Planned, TreeBenchmark, fresh_journal, grow, make_context

# Rollouts go by CHOICES, so an estimate is exactly: start 0.4, a 0.4, b 0.6, d 0.2, c 0.9 (an end).
TREE = {"a": {"x": 0.2, "y": 0.4}, "b": {"x": 0.6, "y": 0.3}, "d": {"x": 0.2}, "c": 0.9}

CHOICES = {"": "a", "a": "y"}


def grown(folder, strategy, proposals, tree=TREE, **options):
    with fresh_journal(folder) as journal:
        benchmark = TreeBenchmark({"t": tree}, **options)
        return grow(strategy, make_context(benchmark, Planned(proposals, CHOICES), journal))
