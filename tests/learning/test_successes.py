"""The successes that are imitated: one choice for credit, closing pass and replay."""

from credit_toys import THREE, rollout, tree_of

from rro.learning.credit.group_advantages import GroupAdvantages
from rro.learning.credit.successes import Successes
from rro.learning.replay import pooled
from rro.learning.successes import Success, shortest

LONG = rollout([("x", "s1"), ("v", "s3"), ("y", "")], 1.0)


def success(task, *actions):
    steps = [(action, f"after {action}") for action in actions[:-1]]
    return Success(task, rollout([*steps, (actions[-1], "")], 1.0).messages())


def test_the_shortest_of_each_task_come_first_and_each_text_once():
    first, again, other = success("b", "x", "y"), success("b", "x", "y"), success("b", "z", "y")
    long, alone = success("b", "x", "v", "y"), success("a", "y")
    given = [long, first, again, alone, other]
    assert shortest(given, 1) == [first, alone]
    assert shortest(given, 2) == [first, other, alone]
    assert shortest(given, 9) == [first, other, long, alone]


def test_the_replay_pool_and_the_credit_choose_the_same():
    tree = tree_of(LONG, *THREE.root.rollouts.values())
    episodes = GroupAdvantages().rows(tree)
    for per_task in (1, 2, 9):
        chosen = [each.messages for each in pooled([], episodes, per_task)]
        assert chosen == list(Successes(per_task).rows(tree))


def test_the_replay_pool_keeps_those_of_earlier_rounds_and_is_ordered_by_task():
    kept = pooled([], GroupAdvantages().rows(tree_of(LONG)), 1)
    (shorter,) = pooled(kept, GroupAdvantages().rows(THREE), 1)
    assert [each.steps for each in (*kept, shorter)] == [3, 2]
    tasks = [each.task for each in pooled([success("u", "y")], GroupAdvantages().rows(THREE), 1)]
    assert tasks == ["t", "u"]
