"""How one token is chosen: the right distribution, decided by seed and step alone."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rro.policies.local.sampling import Row, choose, offsets
from rro.types import SamplingParams

LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.5, -8.0, 1.0])


def row(seed: int, drawn: int = 0, **params: float) -> Row:
    return Row((1,), SamplingParams(**params), seed, 99, tokens=[0] * drawn)


def draw(count: int, **params: float) -> torch.Tensor:
    rows = [row(seed, **params) for seed in range(count)]
    return choose(LOGITS.expand(count, -1), rows)


def test_frequencies_are_the_probabilities() -> None:
    for temperature in (1.0, 0.5, 2.0):
        expected = torch.softmax(LOGITS / temperature, -1)
        frequency = torch.bincount(draw(20_000, temperature=temperature), minlength=6) / 20_000
        assert torch.all(
            (frequency - expected).abs() < 4.5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-9
        )


def test_temperature_zero_takes_the_likeliest_token_beside_sampled_rows() -> None:
    rows = [row(seed, temperature=float(seed % 2)) for seed in range(200)]
    chosen = choose(LOGITS.expand(200, -1), rows).tolist()
    assert set(chosen[::2]) == {0}
    assert len(set(chosen[1::2])) > 1


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=9),
    st.floats(0.01, 1.0),
    st.integers(0, 2**63 - 1),
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(logits, top_p, seed) -> None:
    probabilities = np.exp(np.array(logits)) / np.exp(np.array(logits)).sum()
    order = np.argsort(-probabilities, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(probabilities[order])[:-1]])
    nucleus = {int(token) for token, mass in zip(order, before, strict=True) if mass < top_p + 1e-6}
    least = probabilities[list(nucleus)].min()
    chosen = int(choose(torch.tensor([logits]), [row(seed, top_p=top_p)])[0])
    assert probabilities[chosen] >= least - 1e-6  # ties may be kept in another order


def test_random_numbers_depend_on_seed_and_step_alone() -> None:
    rows = [row(seed, drawn) for seed in (0, 1, 2**63 - 1) for drawn in range(4)]
    assert offsets(rows) == [offsets([one])[0] for one in rows]
    assert len(set(offsets(rows))) == len(rows)
    many = (
        np.array(offsets([row(seed, drawn) for seed in range(200) for drawn in range(50)])) / 2**21
    )
    assert 0 <= many.min() < many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 0.03


def test_draws_of_one_row_are_independent_of_each_other() -> None:
    """Pairs of successive draws, over many seeds, against the product of their probabilities."""
    first, second = (
        choose(LOGITS.expand(20_000, -1), [row(i, drawn) for i in range(20_000)])
        for drawn in (0, 1)
    )
    expected = torch.outer(*[torch.softmax(LOGITS, -1)] * 2)
    frequency = torch.bincount(first * 6 + second, minlength=36).view(6, 6) / 20_000
    assert torch.all(
        (frequency - expected).abs() < 4.5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-4
    )


def test_a_small_change_of_the_logits_changes_few_draws() -> None:
    """As rounding does: about as few as any method could, with a thousand tokens to choose from."""
    torch.manual_seed(0)
    logits = torch.randn(1000) * 2
    changed = logits + 0.02 * torch.randn(1000)
    rows = [row(seed) for seed in range(5000)]
    moved = (
        (choose(logits.expand(5000, -1), rows) != choose(changed.expand(5000, -1), rows))
        .float()
        .mean()
    )
    unavoidable = (torch.softmax(logits, -1) - torch.softmax(changed, -1)).abs().sum() / 2
    assert moved < 2.5 * unavoidable < 0.05
