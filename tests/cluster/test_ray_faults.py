"""A Ray cluster of three nodes, of which actors, nodes and the driver end, are drained and join:
the exploration ends as an undisturbed one."""

import threading
from contextlib import contextmanager

import pytest

pytest.importorskip("ray")
from benchmarks.cluster_faults import Nodes, actors_of, disturb, driver, finish, work

pytestmark = pytest.mark.slow


@contextmanager
def watched(nodes, seen):
    """Counts actors, twice a second: on the nodes that work, and on those that are drained."""
    ended = threading.Event()

    def watch():
        while not ended.wait(0.5):
            counts = [[len(actors_of(node)) for node in group] for group in nodes.groups()]
            seen.append(counts)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def test_whatever_ends_the_exploration_ends_as_without_a_cluster(tmp_path):
    finish(driver(tmp_path / "undisturbed"))
    expected, seen = work(tmp_path / "undisturbed"), []
    assert len(expected) > 400
    faults = [(40, "actor"), (90, "node"), (140, "join"), (230, "driver"), (300, "drain")]
    with Nodes() as nodes, watched(nodes, seen):
        disturb(nodes, tmp_path / "run", faults, 3)
    assert work(tmp_path / "run") == expected
    assert any(len(working) == 2 and working[1] for working, _ in seen), "one that joins is used"
    assert any(sum(working) and left == [0] for working, left in seen), "one that drains is left"
