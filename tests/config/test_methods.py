"""Methods: combinations that a recipe or an override names."""

import pytest

from rro.config import load_config
from rro.config.packaged import packaged_methods
from rro.errors import UsageError


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
    with pytest.raises(UsageError, match=r"method adaptiv: .*adaptive"):
        recipe(SHOP, "method=adaptiv")
