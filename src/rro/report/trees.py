"""One task's tree, rollouts and pairs as plain data for the page. Texts are numbers in a table of
strings.

Nothing is sampled, estimated or decided here: the tree comes from rro.exploration.records, the
pairs from the run's rows. What a task under way does not have yet is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rro.evaluation.results import RewardScale
from rro.evaluation.statistics import outcome_interval
from rro.exploration.tree import Node, Tree
from rro.report.credit import Advantages
from rro.report.source import Exploration, Explored
from rro.types import ProcessReward, Step, Trajectory, Usage

Intern = Callable[[str], int]  # a text -> its number in the table
USAGE = (
    "policy_calls",
    "prompt_tokens",
    "cached_tokens",
    "generated_tokens",
    "environment_steps",
    "seconds",
    "cost",
    "thought_tokens",
)
SNIPPET = 240
"""Characters of the instruction that lists of tasks show and search."""


@dataclass
class TaskView:
    """One task as data: `tree` for the viewer, `listed` for the list of tasks, `figures` for the
    overview."""

    tree: dict[str, Any]
    listed: dict[str, Any]
    figures: dict[str, Any]


def build(exploration: Exploration, explored: Explored, intern: Intern) -> TaskView:
    """A task's tree, its entry in the list, and what it adds to the overview."""
    tree, end = explored.tree, explored.end or {}
    nodes = {node.id: node for node in tree.root.walk()}
    if tree.root.estimate is None:  # strategies over whole episodes have no other figure
        tree.root.estimate = _mean([*tree.root.rollouts.values(), *tree.episodes.values()])
    sides: dict[str, set[str]] = {}
    pairs = [_pair(row, tree, sides, intern) for row in explored.pairs]
    usage, numbers = tree.usage(), {name: number for number, name in enumerate(nodes)}
    data = {
        "strategy": end.get("strategy"),
        "finished": explored.end is not None,
        "cut": end.get("cut", False),
        "seconds": end.get("seconds"),
        "opening": [[message.role, intern(message.text)] for message in tree.root.opening],
        "nodes": [_node(node, numbers, sides, explored, intern) for node in nodes.values()],
        "episodes": rollouts_of(tree.episodes, explored.advantages, intern),
        "pairs": pairs,
        "usage": _usage(usage),
    }
    return TaskView(
        data, _listed(exploration, explored, sides, usage), _figures(exploration, explored, usage)
    )


def _mean(rollouts: Iterable[Trajectory]) -> ProcessReward | None:
    """The mean outcome of those that did not fail."""
    kept = [rollout for rollout in rollouts if rollout.reward is not None]
    rewards = tuple(rollout.reward for rollout in kept if rollout.reward is not None)
    return ProcessReward(rewards, kept[0].policy) if kept else None


def _estimate(reward: ProcessReward | None, scale: RewardScale) -> dict[str, Any] | None:
    if reward is None:
        return None
    return {
        **outcome_interval(reward).within(*scale.range).plain(),
        "exact": reward.exact,
        "policy": reward.policy,
        "outcomes": list(reward.outcomes),
    }


def _node(
    node: Node,
    numbers: Mapping[str, int],
    sides: Mapping[str, set[str]],
    explored: Explored,
    intern: Intern,
) -> dict[str, Any]:
    advantages = explored.advantages
    data: dict[str, Any] = {
        "id": node.id,
        "parent": -1 if node.parent is None else numbers[node.parent.id],
        "estimate": _estimate(node.estimate, explored.scale),
        "sides": sorted(sides.get(node.id, ())),
        "rollouts": rollouts_of(node.rollouts, advantages, intern),
    }
    if node.step is not None:
        data["step"] = _step(node.step, advantages.of_node(node), intern)
        data |= {"policy": node.policy, "stop": node.stop, "reward": node.reward}
    if node.episodes and node.parent is not None:
        data["episodes"] = rollouts_of(node.episodes, advantages, intern)
    if node.recycled:
        data["recycled"] = True
    elif node.parent is not None:
        data["usage"] = _usage(node.cost)
    if node.committed:
        data |= {"committed": True, "rose": node.rose}
    return data


def rollouts_of(
    rollouts: Mapping[int, Trajectory], advantages: Advantages, intern: Intern
) -> list[dict[str, Any]]:
    """Whole or partial episodes, by number."""
    return [
        {
            "number": number,
            "steps": [_step(step, advantages.of(step.action), intern) for step in rollout.steps],
            "usage": _usage(rollout.usage),
            "reward": rollout.reward,
            "stop": rollout.stop,
            "policy": rollout.policy,
            "error": rollout.error,
        }
        for number, rollout in sorted(rollouts.items())
    ]


def _step(step: Step, advantage: float | None, intern: Intern) -> list[Any]:
    """[action, observation, 1 if invalid, who wrote the action, its tokens, its advantage, its
    thought, the environment's info as JSON]; the page's `stepOf` reads it. What there is not is
    null."""
    action = step.action
    return [
        intern(action.text),
        intern(step.observation),
        int(step.invalid),
        action.source,
        len(action.token_ids) if action.token_ids else None,
        advantage,
        intern(action.thought) if action.thought else None,
        intern(json.dumps(step.info, ensure_ascii=False)) if step.info else None,
    ]


def _messages(messages: Sequence[Mapping[str, str]], intern: Intern) -> list[list[Any]]:
    """[role, text] of each message, a thought in front of its answer."""
    return [
        [role, intern(text)]
        for message in messages
        for role, text in (
            ("thought", message.get("reasoning_content") or ""),
            (message["role"], message["content"]),
        )
        if role != "thought" or text
    ]


def _pair(
    row: Mapping[str, Any], tree: Tree, sides: dict[str, set[str]], intern: Intern
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "step": row["step"],
        "kind": row["kind"],
        "prompt": _messages(row["prompt"], intern),
    }
    for side in ("chosen", "rejected"):
        node = _side(row, side, tree)
        if node is not None:
            sides.setdefault(node.id, set()).add(side)
        data[side] = {
            "messages": _messages(row[side], intern),
            "node": node.id if node else None,
            **{name: row[f"{side}_{name}"] for name in ("reward", "outcomes", "n", "exact")},
            "policy": row[f"{side}_pricing_policy"],
        }
    return data


def _side(row: Mapping[str, Any], side: str, tree: Tree) -> Node | None:
    """The node that a side of a pair begins with: the candidate at the pair's step with its action
    and its estimate. None for whole episodes."""
    path = [tree.root, *tree.committed()]
    if row["kind"] == "trajectory" or not 1 <= row["step"] <= len(path):
        return None
    text, estimate = (
        row[side][0]["content"],
        ProcessReward(
            tuple(row[f"{side}_outcomes"]), row[f"{side}_pricing_policy"], row[f"{side}_exact"]
        ),
    )
    candidates = path[row["step"] - 1].children
    return next((c for c in candidates if c.action.text == text and c.estimate == estimate), None)


def _listed(
    exploration: Exploration, explored: Explored, sides: Mapping[str, set[str]], usage: Usage
) -> dict[str, Any]:
    """What the list of tasks shows and filters by. `nodes` is flat: depth, process reward in
    thousandths (null: none), and 1 where the node is a side of a pair, for each node in turn."""
    root, pairs = explored.tree.root, explored.pairs
    paired = {"0"} if any(row["kind"] == "trajectory" for row in pairs) else set[str]()
    paired |= sides.keys()
    return {
        "group": exploration.group,
        "id": exploration.task,
        "text": root.opening[-1].content[:SNIPPET] if root.opening else "",
        "finished": explored.end is not None,
        "start": root.estimate.mean if root.estimate else None,
        "line": _line(explored.tree),
        "nodes": [
            figure
            for node in root.walk()
            for figure in (node.depth, _thousandths(node), int(node.id in paired))
        ],
        "pairs": len(pairs),
        "calls": usage.policy_calls,
    }


def _figures(exploration: Exploration, explored: Explored, usage: Usage) -> dict[str, Any]:
    """What `rro.report.overview` adds up."""
    tree = explored.tree
    nodes = list(tree.root.walk())
    return {
        "group": exploration.group,
        "finished": explored.end is not None,
        "start_reward": _start(explored),
        "line": _line(tree),
        "outcomes": [
            rollout.reward
            for rollout in (*tree.root.rollouts.values(), *tree.episodes.values())
            if rollout.reward is not None
        ],
        "per_step": tree.candidates_per_step(),
        "candidates": len(nodes) - 1,
        "rose": sum(bool(node.rose) for node in nodes),
        "rollouts": sum(len(node.rollouts) + len(node.episodes) for node in nodes),
        "pairs": len(explored.pairs),
        "usage": _usage(usage),
    }


def _line(tree: Tree) -> list[float | None]:
    """The process rewards along the chosen trajectory."""
    return [node.estimate.mean if node.estimate else None for node in tree.committed()]


def _start(explored: Explored) -> float | None:
    """r_0 as the strategy estimated it."""
    estimate = explored.end["nodes"]["0"]["estimate"] if explored.end else None
    return None if estimate is None else ProcessReward(tuple(estimate["outcomes"]), "").mean


def _thousandths(node: Node) -> int | None:
    return None if node.estimate is None else round(node.estimate.mean * 1000)


def _usage(usage: Usage) -> list[float]:
    """In the order of USAGE."""
    return [round(getattr(usage, name), 4) for name in USAGE]
