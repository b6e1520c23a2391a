"""InterCode's two rewards, which compare a result with that of the gold query.

Source: Yang et al. (arXiv 2306.14898), and the code of princeton-nlp/intercode. Knows nothing of
SQL: rows are texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

RewardKind = Literal["published", "iou"]


def grade(rows: Sequence[str], gold: Sequence[str], kind: RewardKind = "published") -> float:
    """The reward of a result's rows against those of the gold query, each row as text.

    "iou" is multiset intersection over union, in [0, 1]; it is 1 for two empty results. "published"
    is that times Kendall's tau between the orders of the common rows, rounded to two decimals, in
    [-1, 1]; without two different common rows it is the same as "iou".
    """
    counts, gold_counts = Counter(rows), Counter(gold)
    common = counts & gold_counts
    union = (counts | gold_counts).total()
    if not union:
        return 1.0
    overlap = common.total() / union
    if kind == "iou" or len(common) < 2:
        return overlap
    # Rounded as NumPy does: to the nearest whole number of hundredths.
    return round(kendall(_kept(rows, common), _kept(gold, common)) * overlap * 100) / 100


def _kept(rows: Sequence[str], common: Counter[str]) -> list[str]:
    """The rows that are in the multiset `common`, in their order."""
    left = Counter(common)
    kept = []
    for row in rows:
        if left[row] > 0:
            left[row] -= 1
            kept.append(row)
    return kept


def kendall(one: Sequence[str], other: Sequence[str]) -> float:
    """Kendall's tau-b between two arrangements of the same texts, of which at least two differ."""
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
    """Number of pairs in descending order, counted with a Fenwick tree over the ranks."""
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
