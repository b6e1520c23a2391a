"""Which tasks a round explores."""

from hypothesis import given
from hypothesis import strategies as st

from rro.pipeline.rounds import tasks_of_round
from rro.types import Task


def ids(count, number, per_round, seed=0):
    tasks = [Task(str(n)) for n in range(count)]
    return [task.id for task in tasks_of_round(tasks, number, per_round, seed)]


def test_rounds_take_new_tasks_in_order():
    assert [ids(6, number, 2) for number in (1, 2, 3)] == [["0", "1"], ["2", "3"], ["4", "5"]]


def test_when_all_are_used_up_they_come_again_in_another_order():
    again = [ids(6, number, 2) for number in (4, 5, 6)]
    assert sorted(task for found in again for task in found) == list("012345")
    assert again != [["0", "1"], ["2", "3"], ["4", "5"]]
    assert again == [ids(6, number, 2) for number in (4, 5, 6)]


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_a_round_never_has_a_task_twice_and_is_full(count, number, per_round, seed):
    found = ids(count, number, per_round, seed)
    assert len(set(found)) == len(found) == min(count, per_round)
