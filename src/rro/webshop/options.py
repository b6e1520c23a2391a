"""The options of `environment.name = "webshop"`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rro.config import Section
from rro.webshop.goals import GoalKind
from rro.webshop.sample import SampleOptions


class WebShopOptions(Section):
    """WebShop, a simulated shop in which an agent buys what an instruction asks for."""

    catalogue: Literal["folder", "sample"] = "folder"
    """Where the products come from: the files in `data`, or a small generated shop (`sample`) that
    needs no download."""
    data: Path | None = None
    """Folder with WebShop's files. Default: where `rro data fetch webshop-1k` puts them."""
    goals: GoalKind = "synthetic"
    """Which instructions the agent gets: `synthetic` ones, made from products and their options, or
    `human` ones, written by people."""
    price_seed: int = 0
    """Seed of the random stream that draws prices from price ranges and the goals' price limits."""
    sample_seed: int = 0
    """Seed of the generated shop, if `catalogue` is `sample`."""
    sample: SampleOptions = SampleOptions()
    """Size of the generated shop, if `catalogue` is `sample`."""
    index: Path | None = None
    """Folder for the products and their search index. They are put there once and mapped into
    memory afterwards, which processes share. Default: in memory, read and indexed each time."""
    results_per_page: int = Field(10, ge=1)
    """Products on a page of search results. The original shows 10."""
    reward: Literal["score", "success"] = "score"
    """What a purchase earns: `score`, the original's, which counts what fits; or `success`, 1 where
    all fits and else 0, so that one wrong step costs all."""
    tools: bool = False
    """Whether the agent acts by calling the tools `search(query)` and `click(element)`, which the
    model's chat template shows, instead of writing text in a form."""
    show_attributes: bool = False
    """Whether product pages have an Attributes section."""
    system: str | None = None
    """The opening message that explains the rules. Default: a built-in text. An empty text leaves
    out both the message and its acknowledgement, "OK"."""
