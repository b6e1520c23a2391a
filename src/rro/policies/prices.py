"""Money: a policy whose completions also say what they cost. Backends count tokens and know no
prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rro.config import PricesConfig
from rro.policies.base import Policy
from rro.types import Completion, Message, SamplingParams, Usage


def price(usage: Usage, prices: PricesConfig) -> Usage:
    """`usage` with its cost, in the table's currency: prompt tokens (cached ones at their own
    price) and generated ones."""
    cached = prices.prompt if prices.cached is None else prices.cached
    new = usage.prompt_tokens - usage.cached_tokens
    cost = (
        new * prices.prompt
        + usage.cached_tokens * cached
        + usage.generated_tokens * prices.generated
    )
    return replace(usage, cost=cost / 1e6)


def priced(policy: Policy, prices: PricesConfig) -> Policy:
    """`policy` itself where nothing has a price, else one that fills in `usage.cost`."""
    free = not (prices.prompt or prices.cached or prices.generated)
    return policy if free else PricedPolicy(policy, prices)


class PricedPolicy:
    """Answers as `inner` does; each completion's usage holds its cost."""

    def __init__(self, inner: Policy, prices: PricesConfig) -> None:
        self.inner, self.name, self._prices = inner, inner.name, prices

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.inner.provenance

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """As the contract says."""
        completions = await self.inner.sample(messages, n, params, seed)
        return [replace(one, usage=price(one.usage, self._prices)) for one in completions]

    async def close(self) -> None:
        """Close the inner policy."""
        await self.inner.close()
