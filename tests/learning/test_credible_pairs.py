"""What credible pairs believe beforehand: from the round's trees, or fixed."""

import random

import pytest
from credit_toys import OPENING, act, rollout

from rro.exploration.beliefs import Evidence, Prior
from rro.exploration.tree import Node, Tree
from rro.learning.credit.credible_pairs import CrediblePairs
from rro.types import ProcessReward, Step, Task


def tree(name, *outcomes):
    """A start with a candidate for each tuple of outcomes; the first is committed."""
    root = Node("0", None, opening=OPENING)
    root.estimate = ProcessReward(tuple(x for some in outcomes for x in some), "p")
    for number, some in enumerate(outcomes):
        step = Step(act(f"{number}"), f"seen {number}", 0.0, False)
        node = Node(f"0.{number}", root, step=step, committed=number == 0)
        node.estimate = ProcessReward(some, "p")
        node.rollouts = {
            draw: rollout([("end", "")], reward, node.history()) for draw, reward in enumerate(some)
        }
        root.children.append(node)
    return Tree(Task(name), root)


def credibilities(prior_from, trees):
    credit = CrediblePairs(off_path="no", prior_from=prior_from, max_error=0.5).fitted(trees)
    return [[pair.credibility for pair in credit.rows(each)] for each in trees]


SURE = [tree(f"t{n}", (1.0, 1.0, 1.0), (0.0, 0.0), (1.0, 0.0)) for n in range(20)]
GRADED = [*SURE[:-1], tree("g", (1.0, 1.0, 0.75), (0.0, 0.0), (1.0, 0.0))]


@pytest.mark.parametrize(("trees", "chosen"), [(SURE, "trees"), (GRADED, "fixed")])
def test_auto_looks_at_the_trees_where_each_outcome_is_a_bound(trees, chosen):
    found = {kind: credibilities(kind, trees) for kind in ("auto", "trees", "fixed")}
    assert found["trees"] != found["fixed"]
    assert found["auto"] == found[chosen]
    assert all(found["auto"])


def test_the_fixed_prior_does_not_depend_on_other_trees():
    alone = credibilities("fixed", GRADED[:1])
    assert credibilities("fixed", GRADED)[0] == alone[0]


def test_of_states_as_the_fixed_prior_assumes_the_claimed_share_is_right():
    rng, prior = random.Random(5), Prior.fixed()
    claimed, right = [], []
    for _ in range(3000):
        center = rng.random()
        values = [rng.betavariate(2 * center, 2 * (1 - center)) for _ in "123"]
        drawn = [sum(rng.random() < value for _ in "1234") for value in values]
        posterior = prior.posterior([Evidence(hits, 4 - hits) for hits in drawn])
        for one, other in ((0, 1), (1, 2), (2, 0)):
            if (above := posterior.above(one, other)) >= 0.8:
                claimed.append(above)
                right.append(values[one] > values[other])
    assert len(claimed) > 1000
    assert sum(right) / len(right) == pytest.approx(sum(claimed) / len(claimed), abs=0.025)
