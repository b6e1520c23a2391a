"""Blocks of keys and values by token prefix. The stored state here is the tokens themselves, so it can be checked."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rro.policies.prefix_cache import BLOCK, PrefixCache

# Few different tokens and few lengths, so that sequences often share beginnings.
SEQUENCES = st.lists(st.tuples(st.lists(st.integers(0, 1), max_size=4), st.integers(0, 5 * BLOCK)), max_size=12)


def tokens(choices: list[int], length: int) -> tuple[int, ...]:
    """A sequence whose block i is all `choices[i]`, and 2 beyond."""
    return tuple(choices[i // BLOCK] if i // BLOCK < len(choices) else 2 for i in range(length))


def keep(cache: PrefixCache, ids: tuple[int, ...]) -> None:
    cache.store(ids, lambda start, end: torch.tensor(ids[start:end]))


@given(SEQUENCES, st.integers(0, 12 * BLOCK))
def test_a_match_is_a_true_prefix_and_the_budget_holds(sequences, budget) -> None:
    cache, seen = PrefixCache(budget), []
    for choices, length in sequences:
        ids = tokens(choices, length)
        found = cache.match(ids)
        state = [token for block in found for token in block.state.tolist()]
        assert tuple(state) == ids[: len(state)]
        assert len(state) < max(1, len(ids))  # one token is left, whose logits are wanted
        assert not state or any(other[: len(state)] == ids[: len(state)] for other in seen)
        keep(cache, ids)
        seen.append(ids)
        assert cache.tokens <= budget


@given(SEQUENCES)
def test_with_room_for_all_every_whole_block_is_found_again(sequences) -> None:
    cache = PrefixCache(10**6)
    for choices, length in sequences:
        keep(cache, tokens(choices, length))
    for choices, length in sequences:
        ids = (*tokens(choices, length), 3)
        assert len(cache.match(ids)) == length // BLOCK


def test_equal_beginnings_are_stored_once() -> None:
    cache = PrefixCache(10**6)
    keep(cache, tokens([0, 0, 1], 3 * BLOCK))
    keep(cache, tokens([0, 0, 0], 3 * BLOCK))
    assert cache.tokens == 4 * BLOCK


def test_least_recently_used_ends_go_first() -> None:
    cache = PrefixCache(4 * BLOCK)
    old, new = tokens([0, 1], 2 * BLOCK), tokens([1, 0], 2 * BLOCK)
    keep(cache, old)
    keep(cache, new)
    assert len(cache.match((*old, 3))) == 2  # used again: now `new` is older
    keep(cache, tokens([2], BLOCK))
    assert [len(cache.match((*ids, 3))) for ids in (old, new)] == [2, 1]


def test_what_cannot_be_read_is_not_stored() -> None:
    cache, ids = PrefixCache(10**6), tokens([0, 1, 0], 3 * BLOCK)
    assert cache.store(ids, lambda start, end: torch.tensor(ids[start:end]), readable=BLOCK) == []
    keep(cache, ids[:BLOCK])
    assert len(cache.store(ids, lambda start, end: torch.tensor(ids[start:end]), readable=BLOCK)) == 3


def test_halving_forgets_all_and_keeps_half_as_much() -> None:
    cache = PrefixCache(4 * BLOCK)
    keep(cache, tokens([0, 1, 0, 1], 4 * BLOCK))
    cache.halve()
    assert cache.tokens == 0
    keep(cache, tokens([0, 1, 0, 1], 4 * BLOCK))
    assert cache.tokens == 2 * BLOCK
