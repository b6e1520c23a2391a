"""Prices: a policy whose completions also have a cost in money. Knows tokens and prices, no
backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rro.config import PricesConfig
from rro.policies.base import Policy
from rro.types import Completion, Message, SamplingParams, Usage


def price(usage: Usage, prices: PricesConfig) -> Usage:
    """`usage` with its cost in prices.currency: of prompt tokens (cached ones at their own price)
    and generated tokens."""
    cached = prices.prompt if prices.cached is None else prices.cached
    new = usage.prompt_tokens - usage.cached_tokens
    cost = (
        new * prices.prompt
        + usage.cached_tokens * cached
        + usage.generated_tokens * prices.generated
    )
    return replace(usage, cost=cost / 1e6)


def priced(policy: Policy, prices: PricesConfig) -> Policy:
    """`policy` itself if nothing has a price, else one that sets `usage.cost`."""
    free = not (prices.prompt or prices.cached or prices.generated)
    return policy if free else PricedPolicy(policy, prices)


class PricedPolicy:
    """Samples from the policy `inner`, and sets the cost in each completion's usage."""

    def __init__(self, inner: Policy, prices: PricesConfig) -> None:
        self.inner, self.name, self._prices = inner, inner.name, prices

    @property
    def provenance(self) -> Mapping[str, Any]:
        """That of the inner policy."""
        return self.inner.provenance

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """As the inner policy does."""
        completions = await self.inner.sample(messages, n, params, seed)
        return [
            replace(completion, usage=price(completion.usage, self._prices))
            for completion in completions
        ]

    async def close(self) -> None:
        """Close the inner policy."""
        await self.inner.close()
