"""Recipes: what is read, overridden, refused and dumped."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.config import Config, dump_toml, load_config, parse_config
from rro.errors import UsageError
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rising import RisingExploration
from rro.learning.credit.choosing import credit_of


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('name = "mine"\n[explore]\nrollouts = 3\n[environment.options]\nhuman = true\n')
    return path


def test_a_recipe_and_its_overrides(recipe):
    overrides = [
        "explore.rollouts=7",
        "model.name=google/gemma-2-2b-it",
        "dpo.learning_rate=1e-5",
        "model.lora.rank=8",
        "environment.options.goals=[1, 2]",
        "explore.strategy='fixed'",
        "name=a=b",
    ]
    config = load_config(recipe, overrides)
    assert (config.name, config.explore.rollouts, config.explore.strategy) == ("a=b", 7, "fixed")
    assert config.model.name == "google/gemma-2-2b-it"
    assert config.model.lora is not None
    assert config.model.lora.rank == 8
    assert config.dpo.learning_rate == 1e-5
    assert config.environment.options == {"human": True, "goals": [1, 2]}


def test_none_as_an_override(recipe):
    recipe.write_text("[environment]\nmax_steps = 4\n")
    assert load_config(recipe, ["environment.max_steps=none"]).environment.max_steps is None


@pytest.mark.parametrize(
    ("override", "made"),
    [
        ("credit.group_advantages.scale=none", "none"),
        ("environment.options.show_schema=none", "none"),
        ("environment.options.system=none", None),
        ("policy.openai.tokens=none", "none"),
        ("policy.openai.model=none", None),
        ("policy.openai.model= none", None),
    ],
)
def test_none_for_an_option_is_a_word_or_no_value(recipe, override, made, tmp_path):
    recipe.write_text('[environment]\nname = "intercode-sql"\n')
    config = load_config(recipe, [override])
    again = tmp_path / "again.toml"
    again.write_text(dump_toml(config))
    section, table, key = override.partition("=")[0].split(".")
    name = "intercode-sql" if table == "options" else table
    for read in (config, load_config(again)):
        plugins = getattr(read, section)
        plugin = plugins.door.find(name)
        assert getattr(plugin.options(plugins.options_of(plugin)), key) == made


def test_defaults_are_the_papers():
    config = Config()
    assert RisingExploration() == RisingExploration(5, 5, "strict", "estimated")
    assert config.explore.strategy == RisingExploration().name
    credit = credit_of(RisingExploration())
    assert (credit.siblings, credit.margin) == ("lowest", 0.0)
    assert credit_of(IterativeStepRefinement()).margin == 0.01
    assert (config.dpo.beta, config.dpo.learning_rate, config.sft.learning_rate) == (
        0.1,
        3e-6,
        2e-5,
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("explore.rolouts=3", "unknown key explore.rolouts: did you mean rollouts"),
        ("model.lora.rnk=3", "unknown key model.lora.rnk: did you mean rank"),
        ("xyz=1", "unknown key xyz: known keys are name"),
        ("explore.rollouts=0", "explore.rollouts must be a whole number of at least 1, not 0"),
        (
            "explore.rollouts=many",
            "explore.rollouts must be a whole number of at least 1, not 'many'",
        ),
        ("explore.strategy=ppo", "unknown strategy 'ppo': choose one of .*rro"),
        ("dpo.batch_size=0", "dpo.batch_size must be a whole number of at least 1, not 0"),
        ("seed", "override seed: sets nothing: write key.sub=value"),
        ("=3", "override =3: sets nothing"),
        ("name.first=3", "name is a value, not a section"),
    ],
)
def test_what_is_wrong_is_named(recipe, override, sentence):
    with pytest.raises(UsageError, match=sentence):
        load_config(recipe, [override])


@pytest.mark.parametrize("text", ["name = ", "name = 'a'\nname = 'b'", "\x00"])
def test_a_recipe_that_is_no_toml(recipe, text):
    recipe.write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.toml"):
        load_config(recipe)


def test_a_recipe_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(UsageError, match="no such recipe"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(UsageError):
        load_config(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        load_config(tmp_path / "bytes.toml")


@given(
    st.builds(
        lambda text, margin, steps, lora, options: {
            "explore": {"margin": margin},
            "environment": {"max_steps": steps, "options": options},
            "model": {"lora": {"rank": lora} if lora else None, "text_tokens": [text]},
        },
        st.text(st.characters(exclude_categories=["Cs"])),
        st.floats(0, 10),
        st.none() | st.integers(1, 99),
        st.none() | st.integers(1, 99),
        st.dictionaries(
            st.text("abc", min_size=1), st.booleans() | st.integers(-9, 9) | st.text("ab\"\\\n'")
        ),
    )
)
def test_dumped_and_read_again(tmp_path_factory, tree):
    config = parse_config(tree, "test")
    path: Path = tmp_path_factory.mktemp("dump") / "config.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    assert load_config(path) == config


def test_options_that_decide_nothing_any_more_are_left_out_with_a_warning(tmp_path, caplog):
    recipe = tmp_path / "recipe.toml"
    text = (Path(__file__).parents[2] / "recipes/quickstart.toml").read_text()
    old = "[explore.adaptive]\nrace = false\nprior = 3.0\nmax_draws = 9\nmin_draws = 5\n"
    recipe.write_text(text + "\n" + old)
    config = load_config(recipe)
    assert config.explore.model_extra["adaptive"] == {"min_draws": 5}
    for key in ("race", "prior", "max_draws"):
        assert f"explore.adaptive.{key} decides nothing any more: remove it" in caplog.text
