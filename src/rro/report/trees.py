"""One task's records as plain data for the page: its tree, rollouts and pairs. Texts are numbers in
a table of strings.

Nothing is sampled or decided here; what the journal does not say (a task under way has no chosen
path yet) is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rro.evaluation.statistics import outcome_interval
from rro.report.source import Exploration, Record, TaskRecords
from rro.seeds import derive_seed
from rro.types import ProcessReward, StopReason, Usage

Intern = Callable[[str], int]  # a text -> its number in the table
USAGE = (
    "policy_calls",
    "prompt_tokens",
    "cached_tokens",
    "generated_tokens",
    "environment_steps",
    "seconds",
    "cost",
)
_SNIPPET = 240  # characters of the instruction that the list of tasks shows and searches


@dataclass
class Found:
    """One task as data: `tree` for the viewer, `listed` for the list of tasks, `figures` for the
    overview."""

    tree: dict[str, Any]
    listed: dict[str, Any]
    figures: dict[str, Any]


@dataclass
class _Node:
    id: str
    parent: _Node | None
    step: Mapping[str, Any] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    rollouts: Mapping[int, Record] = field(default_factory=dict)
    committed: Mapping[str, Any] | None = None
    price: dict[str, Any] | None = None
    sides: set[str] = field(default_factory=set)

    @property
    def depth(self) -> int:
        return self.id.count(".")

    def passages(self) -> list[tuple[Sequence[Mapping[str, Any]], Record]]:
        """(the steps that follow this state, the rollout) for the rollouts that begin here, or
        above and pass through."""
        own = [(rollout["steps"], rollout) for _, rollout in sorted(self.rollouts.items())]
        if self.parent is None or self.step is None:
            return own
        text = self.step["action"]["content"]
        above = self.parent.passages()
        return own + [
            (steps[1:], r) for steps, r in above if steps and steps[0]["action"]["content"] == text
        ]


def build(exploration: Exploration, records: TaskRecords, intern: Intern) -> Found:
    """A task's tree, its entry in the list, and what it adds to the overview."""
    nodes = _grow(records)
    end = records.end or {}
    for node in nodes.values():
        node.price = _price(node)
    if nodes["0"].price is None:  # strategies over whole episodes have no other figure
        nodes["0"].price = _mean(records.episodes.values())
    pairs = [_pair(row, nodes, end, intern) for row in end.get("pairs", [])]
    opening = end.get("opening", [])
    usage, numbers = _total(records), {name: number for number, name in enumerate(nodes)}
    tree = {
        "strategy": end.get("strategy"),
        "finished": records.end is not None,
        "cut": end.get("cut", False),
        "seconds": end.get("seconds"),
        "opening": _messages(opening, intern),
        "nodes": [_node(node, numbers, intern) for node in nodes.values()],
        "episodes": [
            _rollout(number, record, intern) for number, record in sorted(records.episodes.items())
        ],
        "pairs": pairs,
        "usage": _usage(usage),
    }
    return Found(
        tree,
        _listed(exploration, end, nodes, opening, usage),
        _figures(exploration, records, len(nodes) - 1, usage),
    )


def _grow(records: TaskRecords) -> dict[str, _Node]:
    """All nodes, parents first. Where a strategy recycles, the first actions of the rollouts
    through a node are its candidates, too: they have no record of their own."""
    committed = {step["node"]: step for step in (records.end or {}).get("committed", [])}
    drawn = {
        name: record for name, record in records.candidates.items() if record["step"] is not None
    }
    nodes = {"0": _Node("0", None, rollouts=records.rollouts.get("0", {}))}
    for name in sorted({*drawn, *records.rollouts, *committed}, key=_place):
        _add(name, nodes, records, drawn, committed)
    if any("~" in name for name in nodes):
        for name in ["0", *committed]:
            for steps, _ in nodes[name].passages():
                if steps:
                    _add(f"{name}.{_recycled_name(steps[0])}", nodes, records, drawn, committed)
    return nodes


def _add(
    name: str,
    nodes: dict[str, _Node],
    records: TaskRecords,
    drawn: Mapping[str, Record],
    committed: Mapping[str, Any],
) -> _Node:
    if name in nodes:
        return nodes[name]
    above, _, last = name.rpartition(".")
    parent = _add(above, nodes, records, drawn, committed)
    record = drawn.get(name, {})
    step = record.get("step")
    if not record:
        step, record = _recycled(parent, last)
    nodes[name] = _Node(
        name, parent, step, record, records.rollouts.get(name, {}), committed.get(name)
    )
    return nodes[name]


def _recycled(parent: _Node, last: str) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """The step of a candidate that came out of a rollout, and what its record would be."""
    for (step, *rest), rollout in (passage for passage in parent.passages() if passage[0]):
        if _recycled_name(step) == last:
            ended = not rest and rollout["stop"] != StopReason.CONTEXT
            last_of_all = {"stop": rollout["stop"], "reward": rollout["reward"]} if ended else {}
            return step, {"policy": rollout["policy"], **last_of_all}
    return None, {}


def _recycled_name(step: Mapping[str, Any]) -> str:
    """The last part of its id, as rro.exploration.sampler gives it: "~" and a digest of its
    action."""
    return f"~{derive_seed(step['action']['content']):016x}"[:11]


def _place(name: str) -> tuple[tuple[int, float, str], ...]:
    """Sorts "0.10" after "0.9", and recycled nodes after the drawn ones."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, math.inf, part) for part in name.split(".")
    )


def _price(node: _Node) -> dict[str, Any] | None:
    """r(h_t, a_t) as the strategy had it. Where that used more outcomes than are on this node, it
    has no interval here."""
    if node.record.get("stop") is not None:
        reward = node.record.get("reward")
        return (
            None
            if reward is None
            else _priced(ProcessReward((reward,), node.record["policy"], exact=True))
        )
    chosen = node.committed or {}
    said = chosen.get("process_reward")
    own, through = _mean(node.rollouts.values()), _mean(rollout for _, rollout in node.passages())
    if said is None:
        return through if "usage" not in node.record else own
    if price := next((price for price in (own, through) if price and price["mean"] == said), None):
        return price
    return {"mean": said, "low": None, "high": None, "n": chosen["n"], "policy": chosen["policy"]}


def _mean(rollouts: Iterable[Record]) -> dict[str, Any] | None:
    """The mean outcome of those that did not fail."""
    kept = [record for record in rollouts if record["reward"] is not None]
    return (
        _priced(ProcessReward(tuple(r["reward"] for r in kept), kept[0]["policy"]))
        if kept
        else None
    )


def _priced(reward: ProcessReward) -> dict[str, Any]:
    return {
        **outcome_interval(reward).plain(),
        "exact": reward.exact,
        "policy": reward.policy,
        "outcomes": list(reward.outcomes),
    }


def _node(node: _Node, numbers: Mapping[str, int], intern: Intern) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": node.id,
        "parent": -1 if node.parent is None else numbers[node.parent.id],
    }
    data |= {"price": node.price, "sides": sorted(node.sides)}
    data["rollouts"] = [
        _rollout(number, record, intern) for number, record in sorted(node.rollouts.items())
    ]
    if node.step is not None:
        data["step"] = _step(node.step, intern)
        data |= {name: node.record.get(name) for name in ("policy", "stop", "reward")}
    if "usage" in node.record:
        data["usage"] = _usage(Usage(**node.record["usage"]))
    elif node.parent is not None:
        data["recycled"] = True
    if node.committed is not None:
        data |= {"committed": True, "rose": node.committed["rose"]}
    return data


def _rollout(number: int, record: Record, intern: Intern) -> dict[str, Any]:
    return {
        "number": number,
        "steps": [_step(step, intern) for step in record["steps"]],
        "usage": _usage(Usage(**record["usage"])),
        **{name: record.get(name) for name in ("reward", "stop", "policy", "error")},
    }


def _step(step: Mapping[str, Any], intern: Intern) -> list[Any]:
    """[action, observation, 1 if invalid, who wrote the action, its tokens]; the page's `stepOf`
    reads it."""
    action = step["action"]
    tokens = len(action["token_ids"]) if action.get("token_ids") else None
    return [
        intern(action["content"]),
        intern(step["observation"]),
        int(step["invalid"]),
        action["source"],
        tokens,
    ]


def _messages(messages: Sequence[Mapping[str, str]], intern: Intern) -> list[list[Any]]:
    return [[message["role"], intern(message["content"])] for message in messages]


def _pair(
    row: Mapping[str, Any], nodes: Mapping[str, _Node], end: Mapping[str, Any], intern: Intern
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "step": row["step"],
        "kind": row["kind"],
        "prompt": _messages(row["prompt"], intern),
    }
    path = ["0", *(step["node"] for step in end["committed"])]
    parent = (
        path[row["step"] - 1] if row["kind"] != "trajectory" and row["step"] <= len(path) else None
    )
    for side in ("chosen", "rejected"):
        node = _side(
            row, side, [node for node in nodes.values() if node.parent and node.parent.id == parent]
        )
        if node is not None:
            node.sides.add(side)
            if (
                node.price is None or node.price["mean"] != row[f"{side}_reward"]
            ):  # it used outcomes of others, too
                outcomes = tuple(row[f"{side}_outcomes"])
                node.price = _priced(
                    ProcessReward(outcomes, row[f"{side}_pricing_policy"], row[f"{side}_exact"])
                )
        data[side] = {
            "messages": _messages(row[side], intern),
            "node": node.id if node else None,
            **{name: row[f"{side}_{name}"] for name in ("reward", "outcomes", "n", "exact")},
            "policy": row[f"{side}_pricing_policy"],
        }
    return data


def _side(row: Mapping[str, Any], side: str, candidates: Sequence[_Node]) -> _Node | None:
    """The candidate that says what this side says, at this price."""
    text, reward = row[side][0]["content"], row[f"{side}_reward"]
    same = [node for node in candidates if node.step and node.step["action"]["content"] == text]
    priced = [node for node in same if node.price and node.price["mean"] == reward]
    return next(iter(priced or same), None)


def _listed(
    exploration: Exploration,
    end: Mapping[str, Any],
    nodes: Mapping[str, _Node],
    opening: Sequence[Mapping[str, str]],
    usage: Usage,
) -> dict[str, Any]:
    """What the list of tasks shows and filters by. `nodes` is flat: depth, process reward in
    thousandths (null: none), and 1 where the node is a side of a pair, for each node in turn."""
    whole = any(row["kind"] == "trajectory" for row in end.get("pairs", []))
    root, *rest = nodes.values()
    listed = [(root, whole), *((node, bool(node.sides)) for node in rest)]
    return {
        "group": exploration.group,
        "id": exploration.task,
        "text": opening[-1]["content"][:_SNIPPET] if opening else "",
        "finished": bool(end),
        "start": root.price["mean"] if root.price else None,
        "line": [step["process_reward"] for step in end.get("committed", [])],
        "nodes": [
            figure
            for node, paired in listed
            for figure in (node.depth, _thousandths(node), int(paired))
        ],
        "pairs": len(end.get("pairs", [])),
        "calls": usage.policy_calls,
    }


def _figures(
    exploration: Exploration, records: TaskRecords, candidates: int, usage: Usage
) -> dict[str, Any]:
    """What `rro.report.overview` adds up."""
    end = records.end or {}
    return {
        "group": exploration.group,
        "finished": bool(end),
        "start_reward": end.get("start_reward"),
        "line": [step["process_reward"] for step in end.get("committed", [])],
        "per_step": end.get("candidates", []),
        "candidates": candidates,
        "rollouts": sum(map(len, records.rollouts.values())) + len(records.episodes),
        "pairs": len(end.get("pairs", [])),
        "usage": _usage(usage),
    }


def _thousandths(node: _Node) -> int | None:
    return None if node.price is None else round(node.price["mean"] * 1000)


def _total(records: TaskRecords) -> Usage:
    rollouts = [record for by_number in records.rollouts.values() for record in by_number.values()]
    everything = [*records.candidates.values(), *rollouts, *records.episodes.values()]
    return sum((Usage(**record["usage"]) for record in everything), Usage())


def _usage(usage: Usage) -> list[float]:
    """In the order of USAGE."""
    return [round(getattr(usage, name), 4) for name in USAGE]
