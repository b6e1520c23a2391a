"""Which credit suits a strategy's trees, made with the options that follow from the strategy's
own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rro import plugins
from rro.concurrency import contained
from rro.config import CreditConfig, parse_options
from rro.errors import RroError, describe, place_of
from rro.exploration.strategies.base import Strategy
from rro.exploration.tree import Tree
from rro.learning.credit.base import Credit, CreditContext


def credit_of(
    strategy: Strategy, context: CreditContext | None = None, section: CreditConfig | None = None
) -> Credit:
    """The credit that `section` names, or else the strategy's own. `context` defaults to one that
    knows the strategy's name alone. Raises UsageError for an unknown name and for options that do
    not fit."""
    section, context = section or CreditConfig(), context or CreditContext(strategy=strategy.name)
    plugin = plugins.CREDITS.find(section.name or strategy.credit)
    own: Mapping[str, Any] = strategy.credit_options() if plugin.name == strategy.credit else {}
    credit: Credit = plugin.make(parse_options(section, plugin, "credit", own), context)
    return credit


def fitted(credit: Credit, trees: Iterable[Tree]) -> Credit:
    """The credit with what it learns from all trees of a round. Raises RroError where it fails."""
    try:
        with contained():
            return credit.fitted(trees)
    except RroError:
        raise
    except Exception as error:
        raise RroError(
            f"the credit could not be fitted to the trees: {describe(error)}{place_of(error)}; fix "
            "it, then resume the run"
        ) from error


def credited(credit: Credit, tree: Tree) -> Sequence[Any]:
    """What a tree gives. Raises RroError where the credit fails: without its rows a training would
    not be what the recipe says."""
    try:
        with contained():
            return credit.rows(tree)
    except RroError:
        raise
    except Exception as error:
        raise RroError(
            f"the credit of task {tree.task.id} failed: {describe(error)}{place_of(error)}; fix "
            "it, then resume the run"
        ) from error
