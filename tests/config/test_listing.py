"""`rro config`: the listing is a recipe that sets what it lists, and names every setting."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rro.config import Config, load_config
from rro.config.listing import as_toml, tables
from rro.config.packaged import packaged_recipes
from rro.plugins import CREDITS, ENVIRONMENTS, LEARNERS, POLICIES, STRATEGIES

ROOT = Path(__file__).parents[2]
DOORS = {
    "environment": ENVIRONMENTS,
    "policy": POLICIES,
    "explore": STRATEGIES,
    "credit": CREDITS,
    "optimise": LEARNERS,
}


def loaded(folder, text, *overrides):
    path = folder / "listed.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def uncommented(text):
    """With the lines of settings that are not set, apart from those without a default."""
    lines = text.splitlines()
    return "\n".join(line.removeprefix("#") for line in lines if not re.match(r"#( |\S+ =$)", line))


def test_the_template_is_a_recipe_that_sets_the_defaults(tmp_path):
    (tmp_path / "empty.toml").touch()
    assert loaded(tmp_path, as_toml(Config())) == load_config(tmp_path / "empty.toml")


@pytest.mark.parametrize("name", packaged_recipes())
def test_the_listing_of_a_recipe_sets_what_the_recipe_sets(tmp_path, name):
    config = load_config(packaged_recipes()[name])
    assert loaded(tmp_path, as_toml(config)) == config


def test_odd_values_survive(tmp_path):
    overrides = [
        'model.text_tokens=["a # \\"b\\"\\n"]',
        "environment.name=webshop",
        'environment.options.system="= ["',
        "environment.webshop.sample.products=4",
        "policy.vllm.options={a = 1, 'b c' = [{d = [1, 2]}, {}], e = []}",
        "model.lora.rank=3",
        "evaluate.greedy=false",
    ]
    (tmp_path / "empty.toml").touch()
    config = load_config(tmp_path / "empty.toml", overrides)
    assert loaded(tmp_path, as_toml(config)) == config


def test_lines_have_up_to_100_columns():
    assert [line for line in as_toml(Config()).splitlines() if len(line) > 100] == []


def test_every_setting_of_every_plugin_is_listed(tmp_path):
    tree = tomllib.loads(uncommented(as_toml(Config())))
    names = {(*table.name, setting.key) for table in tables(Config()) for setting in table.settings}
    for section, door in DOORS.items():
        for plugin in map(door.find, door.names()):
            own_section = plugin.name in ("sft", "dpo")
            where = (plugin.name,) if own_section else (section, plugin.name)
            for key, field in plugin.options_model.model_fields.items():
                known = any(name[: len(where) + 1] == (*where, key) for name in names)
                assert known, (*where, key)
                assert field.description or key == "sample", (*where, key)
    assert tree["explore"]["adaptive"]["max_error"] == 0.2
    assert tree["environment"]["webshop"]["sample"]["products"] == 60
    assert tree["model"]["lora"]["rank"] == 16


def test_all_defaults_can_be_uncommented(tmp_path):
    """Options at their defaults are valid options."""
    config = loaded(tmp_path, uncommented(as_toml(Config())))
    assert config.explore.model_extra["rro"]["rising"] == "strict"
    assert config.sft == Config().sft


def test_the_options_of_the_chosen_plugin_stand_where_the_recipe_sets_them(tmp_path):
    text = as_toml(load_config(packaged_recipes()["quickstart"]))
    tree = tomllib.loads(text)
    assert tree["environment"]["options"]["results_per_page"] == 4
    assert "webshop" not in tree["environment"]
    assert "at least 1; default 10)\nresults_per_page = 4" in " ".join(text.split("\n# "))


def test_an_old_option_is_listed_by_its_new_name(tmp_path):
    (tmp_path / "old.toml").write_text("[explore.adaptive]\nerror = 0.1\n")
    tree = tomllib.loads(as_toml(load_config(tmp_path / "old.toml")))
    assert tree["explore"]["adaptive"] == {"max_error": 0.1}


def test_the_reference_page_is_the_one_of_today():
    command = [sys.executable, "-m", "rro", "config", "--page"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == ran.stdout, "renew it: rro config --page > docs/configuration.md"
