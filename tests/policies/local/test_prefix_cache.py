"""Blocks of keys and values by token prefix. The stored state here is the tokens themselves, so it
can be checked."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rro.policies.local.prefix_cache import BLOCK, PrefixCache

# Few different tokens and few lengths, so that sequences often share beginnings.
SEQUENCES = st.lists(
    st.tuples(st.lists(st.integers(0, 1), max_size=4), st.integers(0, 5 * BLOCK)), max_size=12
)


def tokens(choices: list[int], length: int) -> tuple[int, ...]:
    """A sequence whose block i is all `choices[i]`, and 2 beyond."""
    return tuple(choices[i // BLOCK] if i // BLOCK < len(choices) else 2 for i in range(length))


def keep(cache: PrefixCache, ids: tuple[int, ...], readable: int = 0) -> None:
    cache.store(ids, lambda start, end: torch.tensor([[ids[start:end]]])[..., None], readable)


@given(SEQUENCES, st.integers(0, 12 * BLOCK))
def test_a_match_is_a_true_prefix_and_the_budget_holds(sequences, budget) -> None:
    cache, seen = PrefixCache(budget), []
    for choices, length in sequences:
        ids = tokens(choices, length)
        known = cache.match(ids)
        state = [token for state in known.states for token in state[0, 0, :, 0].tolist()]
        assert tuple(state) == ids[: known.tokens]
        assert len(state) == known.tokens
        assert len(state) < max(1, len(ids))  # one token is left, whose logits are wanted
        assert not state or any(other[: len(state)] == ids[: len(state)] for other in seen)
        keep(cache, ids)
        seen.append(ids)
        assert cache.tokens <= budget


@given(SEQUENCES)
def test_with_room_for_all_every_token_is_found_again(sequences) -> None:
    cache = PrefixCache(10**6)
    for choices, length in sequences:
        keep(cache, tokens(choices, length))
    for choices, length in sequences:
        ids = (*tokens(choices, length), 3)
        assert cache.match(ids).tokens == length


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
    assert cache.match((*old, 3)).tokens == 2 * BLOCK  # used again: now `new` is older
    keep(cache, tokens([2], BLOCK))
    assert [len(cache.match((*ids, 3)).blocks) for ids in (old, new)] == [2, 1]


def test_what_cannot_be_read_is_not_stored() -> None:
    cache, ids = PrefixCache(10**6), tokens([0, 1, 0], 3 * BLOCK)
    keep(cache, ids, readable=BLOCK)
    assert cache.tokens == 0
    keep(cache, ids[:BLOCK])
    keep(cache, ids, readable=BLOCK)
    assert cache.tokens == 3 * BLOCK


def test_a_history_that_differs_inside_a_block_uses_the_beginning_of_it() -> None:
    cache = PrefixCache(10**6)
    keep(cache, (*range(BLOCK), *range(100, 110)))
    assert cache.match((*range(BLOCK), *range(100, 107), 5, 6)).tokens == BLOCK + 7
    assert cache.match((*range(9), 5, 6)).tokens == 9


def test_the_end_of_a_history_that_grows_is_stored_once() -> None:
    cache = PrefixCache(10**6)
    for length in range(1, 3 * BLOCK):
        keep(cache, tuple(range(length)))
        assert cache.tokens == length


def test_halving_drops_everything_and_stores_half_as_much() -> None:
    cache = PrefixCache(4 * BLOCK)
    keep(cache, tokens([0, 1, 0, 1], 4 * BLOCK))
    cache.halve()
    assert cache.tokens == 0
    keep(cache, tokens([0, 1, 0, 1], 4 * BLOCK))
    assert cache.tokens == 2 * BLOCK


def test_memory_is_used_again() -> None:
    cache, storages = PrefixCache(20 * BLOCK), set()
    for number in range(300):
        ids = (*[number] * (2 * BLOCK), number)
        keep(cache, ids)
        states = cache.match((*ids, 0)).states
        assert torch.cat(states, 2).flatten().tolist() == list(ids)
        storages |= {state.untyped_storage().data_ptr() for state in states}
    assert len(storages) == 1  # of 64 blocks
