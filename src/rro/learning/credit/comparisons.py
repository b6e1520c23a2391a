"""Which candidates of a tree a credit compares: those of each committed step and, where it is
asked to, those that were paid for beside the committed path. Judges none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from rro.exploration.tree import Node, RolloutSuffix, Tree, answer, do_the_same, recycled_child

OffPath = Literal["no", "siblings", "tree"]

Comparison = tuple[Node, list[Node]]
"""A candidate, and the others of its state."""


def comparisons(tree: Tree, off_path: OffPath) -> Iterator[Comparison]:
    """Each committed action with its siblings. With `siblings`, then the best of those that were
    not committed with the rest of them; with `tree`, then the same at every state that rollouts
    from them went through, where the candidates are the rollouts' next actions."""
    path = tree.committed()
    for node in path:
        assert node.parent is not None
        yield node, [sibling for sibling in node.parent.children if sibling is not node]
    if off_path == "no":
        return
    beside = [_beside(state) for state in (tree.root, *path)]
    for candidates in beside:
        yield from _best(candidates)
    if off_path == "tree":
        for candidates in beside:
            for candidate in candidates:
                yield from _below(candidate)


def _beside(state: Node) -> list[Node]:
    """The candidates of a state that were not committed, each once; none that does what the
    committed one does."""
    seen, beside = [child for child in state.children if child.committed], list[Node]()
    for child in state.children:
        if not any(do_the_same(child, other) for other in seen):
            seen.append(child)
            beside.append(child)
    return beside


def _best(candidates: Iterable[Node]) -> Iterator[Comparison]:
    """The one with the highest process reward, the first of equals, and the others."""
    rewards = [(node.estimate.mean, node) for node in candidates if node.estimate is not None]
    if len(rewards) > 1:
        best = max(rewards, key=lambda pair: pair[0])[1]
        yield best, [node for _, node in rewards if node is not best]


def _below(node: Node) -> Iterator[Comparison]:
    """The comparisons at a node and at all states below it, shallow ones first."""
    if node.stop is None:
        following = _next_actions(node)
        yield from _best(following)
        for candidate in following:
            yield from _below(candidate)


def _next_actions(node: Node) -> list[Node]:
    """The next actions of all rollouts through a node, as candidates that are not on the tree;
    those that do the same are one, with the outcomes of all."""
    alike: dict[object, list[RolloutSuffix]] = {}
    for suffix in node.suffixes():
        if suffix.next is not None:
            key = (suffix.next.action.content, answer(suffix.next))
            alike.setdefault(key, []).append(suffix)
    candidates = list[Node]()
    for number, suffixes in enumerate(alike.values()):
        new = recycled_child(f"{node.id}.~{number}", node, suffixes[0])
        first = next((known for known in candidates if do_the_same(known, new)), None)
        if first is None:
            candidates.append(first := new)
        first.inherited += [suffix.advanced() for suffix in suffixes]
    for candidate in candidates:
        policy = candidate.inherited[0].rollout.policy
        rewards = [suffix.reward for suffix in candidate.inherited]
        candidate.estimate = candidate.estimated(rewards, policy)
    return candidates
