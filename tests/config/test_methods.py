"""Methods: combinations that a recipe or an override names."""

import pytest

from rro.config import load_config
from rro.config.packaged import packaged_methods
from rro.errors import UsageError
from rro.learning.dpo import of_round


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.toml"

    def write(text, *overrides, check=True):
        file.write_text(text, encoding="utf-8")
        return load_config(file, overrides, check=check)

    return write


SHOP = '[environment]\nname = "webshop"\n'


@pytest.mark.parametrize("name", packaged_methods())
def test_every_method_is_a_recipe_that_holds(recipe, name):
    config = recipe(f'method = "{name}"\n{SHOP}')
    assert config.method == name


def test_a_recipe_stands_above_the_method_that_it_names(recipe):
    config = recipe(f'method = "ipr"\n{SHOP}[explore]\npricing = "policy"\n')
    assert (config.explore.strategy, config.explore.pricing) == ("ipr", "policy")


def test_a_method_in_an_override_stands_above_the_recipe(recipe):
    text = f'{SHOP}[explore]\nstrategy = "rro"\ntasks = 3\n'
    config = recipe(text, "method=ipr", "explore.pricing=policy")
    assert (config.explore.strategy, config.explore.tasks) == ("ipr", 3)
    assert config.explore.pricing == "policy"


def test_an_unknown_method_names_the_nearest(recipe):
    with pytest.raises(
        UsageError, match=r"method=adaptiv: unknown method .adaptiv.: did you mean adaptive"
    ):
        recipe(SHOP, "method=adaptiv")


def test_eto_is_what_its_program_does(recipe):
    """The table: docs/concepts.md, "ETO and IPR as released"."""
    config = recipe(SHOP, "method=eto")
    assert config.explore.proposal_temperature == 0
    assert config.credit.model_extra["outcome_pairs"] == {
        "directions": "both",
        "outcome_margin": 0.0,
        "extra_messages": 10,
    }
    dpo = [of_round(config.dpo, number) for number in (1, 2, 3)]
    assert [(options.beta, options.learning_rate) for options in dpo] == [
        (0.1, 1e-6),
        (0.5, 5e-7),
        (0.5, 5e-7),
    ]
    assert (config.dpo.reference, config.dpo.sft_weight) == ("previous", 0)
    assert (config.rounds.count, config.rounds.tasks) == (3, "same")


def test_ipr_is_what_its_program_does(recipe):
    config = recipe(SHOP, "method=ipr")
    assert (config.explore.proposal_temperature, config.explore.rollouts) == (0, 5)
    assert (config.explore.pricing, config.policy.temperature) == ("sft", 1)
    assert config.explore.model_extra["ipr"] == {"first_step": False, "play_on": True}
    assert config.credit.margin == 0.01
    assert config.credit.model_extra["expert_pairs"] == {
        "sides": "continuation",
        "agree": True,
        "directions": "both",
        "outcome_margin": 0.01,
    }
    dpo = of_round(config.dpo, 6)
    assert (dpo.beta, dpo.learning_rate, dpo.reference) == (0.1, 3e-6, "sft")
    assert (dpo.sft_weight, dpo.sft_loss) == (1, "sum")
    assert (config.rounds.count, config.rounds.tasks) == (6, "same")


@pytest.mark.parametrize("method", ["eto", "ipr"])
def test_what_a_method_states_stands_above_the_recipes_dpo(recipe, method):
    text = f"{SHOP}[dpo]\nsft_weight = 0.3\nbeta = 0.7\nlearning_rate = 1e-4\n"
    config = recipe(text, f"method={method}", "dpo.learning_rate=2e-4")
    assert (config.dpo.beta, config.dpo.learning_rate) == (0.1, 2e-4)
    assert config.dpo.sft_weight == (method == "ipr")


@pytest.mark.parametrize("strategy", ["eto", "ipr"])
def test_a_strategy_without_its_method_is_as_before(recipe, strategy):
    config = recipe(f'{SHOP}[explore]\nstrategy = "{strategy}"\n')
    plain = recipe(SHOP)
    assert (config.dpo, config.credit, config.rounds) == (plain.dpo, plain.credit, plain.rounds)
    assert config.explore == plain.explore.model_copy(update={"strategy": strategy})


def test_a_run_has_one_method(recipe):
    with pytest.raises(UsageError, match=r"method=rro and method=eto: a run has one method$"):
        recipe(SHOP, "method=rro", "explore.tasks=3", "method=eto")


def test_what_stands_above_a_part_of_the_method_is_told(recipe, caplog):
    words = ["method=ipr", "explore.strategy=group", "explore.tasks=3"]
    config = recipe(SHOP, *words)
    assert (config.method, config.explore.strategy) == ("ipr", "group")
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith("explore.strategy=group stands above method=ipr, which has")
    recipe(SHOP, "method=eto", "explore.strategy=eto", "dpo.epochs=2")
    assert len(caplog.records) == 1
