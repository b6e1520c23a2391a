"""What a recipe takes at most, against formulas. tests/end_to_end/test_run.py holds it against a
run."""

import pytest

from rro.config import parse_config
from rro.errors import RroError
from rro.pipeline.estimate import parts, stated

STEPS, TASKS, TOKENS = 6, 5, 8
BASE = {
    "environment": {"name": "anywhere", "max_steps": STEPS},
    "policy": {"max_new_tokens": TOKENS},
    "experts": {"episodes": 20},
    "explore": {"tasks": TASKS},
    "evaluate": {"tasks": 10, "episodes": 2},
}


def estimate(**sections):
    tree = {key: {**BASE.get(key, {}), **section} for key, section in sections.items()}
    config = parse_config({**BASE, **tree}, "recipe")
    return {part.name: part for part in parts(config, stated(config))}


def after(first):
    """Messages after each of the steps from `first` on, together."""
    return sum(STEPS - step for step in range(first, STEPS + 1))


@pytest.mark.parametrize(
    ("explore", "calls"),
    [
        # the start; then candidates with their rollouts at each step
        (
            {"strategy": "rro", "rollouts": 3, "candidates": 4},
            3 * STEPS + 4 * (STEPS + 3 * after(1)),
        ),
        (
            {"strategy": "rro", "rollouts": 3, "candidates": 4, "options": {"rising": "weak"}},
            3 * STEPS + 4 * (STEPS + 3 * after(1)),
        ),
        ({"strategy": "fixed", "rollouts": 3, "candidates": 4}, 4 * (STEPS + 3 * after(1))),
        # all draws of the start, then all but the one that came through
        ({"strategy": "adaptive"}, 4 * STEPS + 3 * after(1)),
        ({"strategy": "adaptive", "options": {"budget": 10}}, 4 * STEPS),
        ({"strategy": "group"}, 8 * STEPS),
        ({"strategy": "group", "options": {"until": "disagree"}}, 8 * STEPS),
        ({"strategy": "group", "options": {"until": "success"}}, 8 * STEPS),
        ({"strategy": "rft", "rollouts": 3}, 3 * STEPS),
        ({"strategy": "eto"}, STEPS),
        # an episode; then its own action, with rollouts of it and of the expert's
        ({"strategy": "ipr", "rollouts": 3}, STEPS + STEPS + 2 * 3 * after(1)),
    ],
)
def test_a_strategy_calls_the_policy_as_often_as_it_can(explore, calls):
    found = estimate(explore=explore)["exploration"]
    assert (found.calls, found.sampled) == (TASKS * calls, TASKS * calls * TOKENS)


def test_budgets_and_rounds_bound_it():
    explore = {"strategy": "group", "budget": {"policy_calls": 100}}
    found = estimate(explore=explore, rounds={"count": 3})["exploration"]
    assert (found.calls, found.sampled) == (300, 300 * TOKENS)
    explore["budget"] = {"generated_tokens": 50}
    assert estimate(explore=explore, rounds={"count": 3})["exploration"].sampled == 150
    rounds = {"count": 3, "generated_tokens": 60}
    assert estimate(explore=explore, rounds=rounds)["exploration"].sampled == 110


@pytest.mark.parametrize(
    ("sections", "rows"),
    [
        ({"explore": {"strategy": "rro", "candidates": 4}}, STEPS),
        (
            {"explore": {"strategy": "rro", "candidates": 4}, "credit": {"siblings": "all"}},
            3 * STEPS,
        ),
        # the best of those beside the path against one that is not it
        (
            {
                "explore": {"strategy": "fixed", "candidates": 4},
                "credit": {"off_path": "siblings"},
            },
            2 * STEPS,
        ),
        ({"explore": {"strategy": "eto"}}, 1),
    ],
)
def test_pairs_are_as_many_as_there_can_be(sections, rows):
    dpo = {"epochs": 2, "max_length": 100}
    assert estimate(**sections, dpo=dpo)["dpo"].trained == 2 * TASKS * rows * 2 * 100


def test_other_rows_closing_pass_and_evaluation():
    found = estimate(
        explore={"strategy": "group", "options": {"episodes": 3}},
        optimise={"policy_gradient": {"epochs": 2, "max_length": 50}},
        rounds={"count": 4, "evaluate_every": 3},
        closing={"successes": 1, "epochs": 1, "max_length": 10},
        sft={"epochs": 2, "max_length": 40},
    )
    assert found["sft"].trained == 2 * 20 * 40
    assert found["policy_gradient"].trained == 2 * 4 * TASKS * 3 * 50
    assert found["closing pass"].trained == 4 * TASKS * 10
    # the SFT policy, those after rounds 3 and 4, and that of the closing pass
    assert found["evaluation"].calls == 4 * 10 * (2 + 1) * STEPS


def test_replayed_successes_are_trained_on_too():
    learner = {"epochs": 1, "max_length": 50, "batch_size": 8}
    explore = {"strategy": "group"}
    without = estimate(explore=explore, optimise={"policy_gradient": learner})
    learner |= {"imitate": 0.3, "imitate_batch": 4}
    found = estimate(explore=explore, optimise={"policy_gradient": learner})
    steps = TASKS * 8 // 8
    more = found["policy_gradient"].trained - without["policy_gradient"].trained
    assert more == steps * 4 * 50


def test_what_takes_too_long_to_count_is_not_counted():
    environment = {"max_steps": 200}
    with pytest.raises(RroError, match="more than 50,000 policy calls"):
        estimate(explore={"strategy": "rro"}, environment=environment)


def test_a_recipe_that_says_too_little_needs_its_environment():
    assert stated(parse_config({"environment": {"name": "anywhere"}}, "recipe")) is None
