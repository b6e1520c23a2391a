"""InterCode's two rewards of a result against the gold's (Yang et al., arXiv 2306.14898)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

RewardKind = Literal["published", "iou"]


def grade(rows: Sequence[str], gold: Sequence[str], kind: RewardKind = "published") -> float:
    """The reward of `rows`, each as text, against those of the gold. (An error, or no result at
    all, earns 0.)

    "iou": multiset intersection over union, 1 for two empty results. "published": that times
    Kendall's tau between the orders of the common rows, to two decimals, where at least two of them
    differ; so it may be negative."""
    mine, wanted = Counter(rows), Counter(gold)
    common = mine & wanted
    union = (mine | wanted).total()
    if not union:
        return 1.0
    overlap = common.total() / union
    if kind == "iou" or len(common) < 2:
        return overlap
    # as NumPy rounds: the nearest whole number of hundredths, not the nearest decimal
    return round(kendall(_kept(rows, common), _kept(gold, common)) * overlap * 100) / 100


def _kept(rows: Sequence[str], common: Counter[str]) -> list[str]:
    """The rows that are in the intersection, in their order, as often as they are there."""
    left = Counter(common)
    kept = []
    for row in rows:
        if left[row] > 0:
            left[row] -= 1
            kept.append(row)
    return kept


def kendall(one: Sequence[str], other: Sequence[str]) -> float:
    """Tau-b of two rearrangements of the same texts, place by place; texts compare as they are. At
    least two differ."""
    if one == other:
        return 1.0
    pairs = sorted(zip(one, other, strict=True))
    total = len(pairs) * (len(pairs) - 1) // 2
    tied = _pairs(Counter(one))
    both = _pairs(Counter(pairs))
    swapped = _inversions([text for _, text in pairs])
    balance = total - 2 * tied + both - 2 * swapped
    return max(-1.0, min(1.0, balance / math.sqrt(total - tied) / math.sqrt(total - tied)))


def _pairs(counts: Counter[str] | Counter[tuple[str, str]]) -> int:
    return sum(count * (count - 1) // 2 for count in counts.values())


def _inversions(texts: Sequence[str]) -> int:
    """Pairs in descending order, by a Fenwick tree over the ranks."""
    ranks = {text: rank for rank, text in enumerate(sorted(set(texts)), 1)}
    tree = [0] * (len(ranks) + 1)
    inversions = 0
    for seen, text in enumerate(texts):
        place, smaller_or_equal = ranks[text], 0
        while place:
            smaller_or_equal += tree[place]
            place &= place - 1
        inversions += seen - smaller_or_equal
        place = ranks[text]
        while place < len(tree):
            tree[place] += 1
            place += place & -place
    return inversions
