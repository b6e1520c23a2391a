"""The example of your own policy in docs/policies.md works as printed."""

import asyncio
import re
from pathlib import Path
from typing import Any

from rro.policies.base import Policy
from rro.types import Message, SamplingParams


def test_the_documented_policy_works() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    (source,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.S)
        if "class RandomClicks" in block
    ]
    names: dict[str, Any] = {}
    exec(source, names)
    policy: Policy = names["RandomClicks"]()
    page = [Message("user", "Results: [b0912] [b0034] [next page]")]

    def draw(n: int, seed: int) -> list[str]:
        return [
            c.message.content for c in asyncio.run(policy.sample(page, n, SamplingParams(), seed))
        ]

    assert set(draw(30, 0)) == {"click[b0912]", "click[b0034]", "click[next page]"}
    assert draw(3, 1) == draw(5, 1)[:3]
