"""Trees whose values, estimates and steps are worked out exactly (fractions, no tolerance).

A tree is an outcome reward (the episode has ended) or a tuple of (probability under the policy,
subtree), one per action of a deterministic environment."""

from collections import defaultdict
from fractions import Fraction as F
from random import Random

from hypothesis import strategies as st

SEEDS = range(60)


def random_tree(random, low, depth=4):
    """Outcomes are quarters in [low, 1]; some actions have probability 0 (top_p) and some siblings
    are worth the same."""
    if depth == 0 or (depth < 4 and random.random() < 0.25):
        return F(random.randint(4 * low, 4), 4)
    weights = [random.randint(0, 3) for _ in range(random.randint(1, 4))]
    weights[random.randrange(len(weights))] += 1
    return tuple(
        (F(weight, sum(weights)), random_tree(random, low, depth - 1)) for weight in weights
    )


def forest(low):
    return [random_tree(Random(seed), low) for seed in SEEDS]


@st.composite
def trees(draw, low=-1):
    leaves = st.integers(4 * low, 4).map(lambda quarter: F(quarter, 4))

    def node(children):
        weighted = st.lists(st.tuples(st.integers(0, 3), children), min_size=1, max_size=4)
        alive = weighted.filter(lambda pairs: sum(weight for weight, _ in pairs))
        return alive.map(
            lambda pairs: tuple((F(w, sum(v for v, _ in pairs)), subtree) for w, subtree in pairs)
        )

    return draw(node(st.recursive(leaves, node, max_leaves=12)))


def value(tree):
    """V(h) by dynamic programming."""
    return (
        tree
        if isinstance(tree, F)
        else sum(probability * value(subtree) for probability, subtree in tree)
    )


def episodes(tree, probability=F(1)):
    """Every complete episode's probability and outcome, by enumeration."""
    if isinstance(tree, F):
        yield probability, tree
    else:
        for p, subtree in tree:
            yield from episodes(subtree, probability * p)


def nodes(tree):
    if not isinstance(tree, F):
        yield tree
        for _, subtree in tree:
            yield from nodes(subtree)


def candidates(node):
    """(probability, process reward) of the actions that the policy can draw."""
    return [(probability, value(subtree)) for probability, subtree in node if probability]


def spread(drawn):
    """mu and d of a distribution given as (probability, value) pairs."""
    mean = sum(p * x for p, x in drawn)
    return mean, sum(p * abs(x - mean) for p, x in drawn)


def chance(drawn, condition):
    return sum((p for p, x in drawn if condition(x)), F(0))


def rising_step(drawn, threshold, cap, strict=True):
    """The stopping rule on every sequence of draws: {(number of draws, chosen candidate's index):
    probability}."""
    results = defaultdict(F)

    def draw(probability, best, count):
        for index, (p, x) in enumerate(drawn):
            rose = x > threshold if strict else x >= threshold
            leader = index if best is None or rose or x > drawn[best][1] else best
            if rose or count + 1 == cap:
                results[count + 1, leader] += probability * p
            else:
                draw(probability * p, leader, count + 1)

    draw(F(1), None, 0)
    return results


def estimates(subtree, n):
    """The exact distribution of the mean outcome of `n` rollouts; a finished episode has one
    outcome, without error."""
    if isinstance(subtree, F):
        return {subtree: F(1)}
    sums = {F(0): F(1)}
    for _ in range(n):
        longer = defaultdict(F)
        for total, p in sums.items():
            for q, outcome in episodes(subtree):
                longer[total + outcome] += p * q
        sums = longer
    return {total / n: p for total, p in sums.items() if p}
