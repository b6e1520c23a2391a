"""Pairs beside the committed path, on a tree whose pairs are worked out by hand."""

import pytest
from credit_toys import OPENING, act, rollout

from rro.exploration.tree import Node, Tree
from rro.learning.credit.base import CreditContext
from rro.learning.credit.credible_pairs import CrediblePairs
from rro.learning.credit.pairs import SiblingPairs
from rro.types import ProcessReward, Step, StopReason, Task


def candidate(root, text, rewards, ways=(), committed=False, state=""):
    """A child with an estimate; its rollouts take `ways`, (action, state after it) each."""
    step = Step(act(text), f"seen {text}", 0.0, False, state=state)
    node = Node(f"0.{len(root.children)}", root, step=step, committed=committed)
    node.estimate = ProcessReward(rewards, "p")
    node.rollouts = {
        number: rollout(way, reward, node.history())
        for number, (way, reward) in enumerate(zip(ways, rewards, strict=False))
    }
    root.children.append(node)
    return node


def tree():
    """Below b, rollouts say x (1.0 and then 0.5) and y (0.0), so x is worth 0.75. Below x they go
    to u (1.0) and v (0.5); y ends."""
    root = Node("0", None, opening=OPENING)
    root.estimate = ProcessReward((0.5,), "p")
    candidate(root, "a", (1.0, 1.0, 0.8), committed=True)
    ways = [[("x", "s"), ("u", "")], [("y", "")], [("x", "s"), ("v", "")]]
    candidate(root, "b", (1.0, 0.0, 0.5), ways)
    candidate(root, "c", (0.25, 0.25, 0.25))
    candidate(root, "d", (0.0, 0.0, 0.0))
    return Tree(Task("t"), root)


def sides(pairs):
    return [(p.step, p.chosen[0].content, p.rejected[0].content) for p in pairs]


PATH, SIBLINGS = [(1, "a", "d")], [(1, "b", "d")]
BELOW = [(2, "x", "y"), (3, "u", "v")]


@pytest.mark.parametrize(
    ("off_path", "pairs"),
    [("no", PATH), ("siblings", PATH + SIBLINGS), ("tree", PATH + SIBLINGS + BELOW)],
)
def test_pairs_beside_the_path(off_path, pairs):
    assert sides(SiblingPairs(off_path=off_path).rows(tree())) == pairs


def test_the_rewards_and_prompts_are_those_of_the_state():
    *_, below, last = SiblingPairs(off_path="tree").rows(tree())
    assert (below.chosen_reward.outcomes, below.rejected_reward.outcomes) == ((1.0, 0.5), (0.0,))
    assert (below.chosen_reward.exact, below.rejected_reward.exact) == (False, True)
    assert [message.content for message in last.prompt[2:]] == ["b", "seen b", "x", "seen s"]


def test_all_lower_siblings_and_the_margin_hold_there_too():
    pairs = SiblingPairs("all", margin=0.25, off_path="siblings").rows(tree())
    assert sides(pairs) == [(1, "a", "b"), (1, "a", "c"), (1, "a", "d"), (1, "b", "d")]


def test_a_credible_order_is_asked_for_there_too():
    def credible(max_error):
        credit = CrediblePairs("lowest", max_error=max_error)
        return sides(credit.rows(tree()))

    assert credible(0.5) == PATH + SIBLINGS + BELOW
    # y, u and v end the episode, so what they are worth is known; a, b and d had three rollouts.
    assert credible(0.01) == BELOW


def test_a_tree_is_not_changed_and_gives_the_same_again():
    grown = tree()
    before = [node.id for node in grown.root.walk()]
    first = SiblingPairs(off_path="tree").rows(grown)
    assert SiblingPairs(off_path="tree").rows(grown) == first
    assert [node.id for node in grown.root.walk()] == before


def test_what_the_committed_action_does_gives_no_second_pair():
    root = Node("0", None, opening=OPENING)
    candidate(root, "a", (1.0,), committed=True, state="s")
    candidate(root, "A", (1.0,), state="s").step = Step(act("A"), "seen a", 0.0, False, state="s")
    for _ in range(2):  # drawn twice
        candidate(root, "d", (0.0,))
    candidate(root, "c", (0.5,))
    assert sides(SiblingPairs(off_path="no").rows(Tree(Task("t"), root))) == [(1, "a", "d")]
    every = sides(SiblingPairs("all").rows(Tree(Task("t"), root)))
    assert every == [(1, "a", "d"), (1, "a", "c")]
    credible = CrediblePairs("all", max_error=0.5, off_path="no")
    assert sides(credible.rows(Tree(Task("t"), root))) == every


def test_actions_that_lead_to_one_state_share_their_outcomes():
    root = Node("0", None, opening=OPENING)
    candidate(root, "a", (1.0,), committed=True)
    ways = [[("x", "s"), ("u", "")], [("X", "s"), ("u", "")], [("y", "t"), ("u", "")]]
    candidate(root, "b", (1.0, 0.0, 0.0), ways)
    candidate(root, "c", (0.5, 0.5))
    *_, last = SiblingPairs(off_path="tree").rows(Tree(Task("t"), root))
    assert (last.chosen[0].content, last.chosen_reward.outcomes) == ("x", (1.0, 0.0))


def test_a_state_where_the_budget_ended_has_candidates_that_were_not_committed():
    root = tree().root
    root.children[0].committed = False
    assert sides(SiblingPairs(off_path="siblings").rows(Tree(Task("t"), root))) == PATH
    assert SiblingPairs().rows(Tree(Task("t"), root)) == []


def test_an_end_has_nothing_below_it_and_what_failed_is_missing():
    root = Node("0", None, opening=OPENING)
    candidate(root, "a", (1.0,), committed=True)
    ended = candidate(root, "b", (0.0,))
    ended.stop, ended.reward = StopReason.TERMINAL, 0.0
    failed = candidate(root, "c", (0.5,))
    failed.estimate = None
    pairs = SiblingPairs(off_path="tree").rows(Tree(Task("t"), root))
    assert sides(pairs) == [(1, "a", "b")]


def test_the_context_reaches_pairs_beside_the_path():
    context = CreditContext(strategy="rro", iteration=3)
    pairs = SiblingPairs(off_path="tree", context=context).rows(tree())
    assert {(pair.strategy, pair.iteration, pair.kind) for pair in pairs} == {("rro", 3, "step")}
