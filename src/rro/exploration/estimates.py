"""Comparing process rewards: arithmetic alone."""

from __future__ import annotations

from rro.types import ProcessReward


def gap(higher: ProcessReward, lower: ProcessReward) -> float:
    """By how much one mean is above another. 0.6 is above 0.4 by 0.2, and not by a rounding error less."""
    return round(higher.mean - lower.mean, 12)
