"""What is wrong with a recipe is told all at once, in our words, each with the place where it was
written."""

import sys
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tomli_w import dumps

from rro.config import load_config
from rro.config.origins import key_lines
from rro.errors import UsageError

RECIPE = """\
name = "mine"
seed = "zero"

[environment]
name = "webshop"
options = { catalogue = "sample", goals = "mixed", results_per_page = "four" }

[explore]
strategy = "rro"
rollout = 3

[explore.rro]
rising = "never"

[policy]
"temperature" = -1
openai.base_url = "http://me:pass-word@host/v1"
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return file


def refused(recipe, *overrides):
    with pytest.raises(UsageError) as raised:
        load_config(recipe, overrides)
    return str(raised.value)


def test_all_problems_are_told_with_file_and_line(recipe):
    message = refused(recipe)
    expected = {
        2: "seed must be a whole number, not 'zero'",
        6: "environment.options.goals must be one of synthetic, human, not 'mixed'",
        10: "unknown key explore.rollout: did you mean rollouts?",
        13: "explore.rro.rising must be one of strict, weak, not 'never'",
        16: "policy.temperature must be a number of at least 0",
        17: "policy.openai.base_url",
    }
    for line, sentence in expected.items():
        assert f"{recipe}:{line}: {sentence}" in message
    assert "environment.options.results_per_page must be a whole number of at least 1" in message
    assert message.startswith("7 settings are wrong:")
    assert "pass-word" not in message
    assert "input" not in message  # no word of pydantic's


def test_an_override_is_blamed_for_what_it_sets(recipe):
    message = refused(
        recipe, "seed=1", "explore.rollouts=0", "policy.temperature=hot", "dpo.betta=1"
    )
    assert "override explore.rollouts=0: explore.rollouts must be a whole number" in message
    assert "override policy.temperature=hot: policy.temperature must be a number" in message
    assert "override dpo.betta=1: unknown key dpo.betta: did you mean beta?" in message
    assert "seed" not in message


def test_problems_come_in_the_order_of_writing(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('[explore]\nrolouts = 3\n[environment]\nname = "web"\n[dpo]\nbetta = 1\n')
    overrides = ["sft.epochs=x", "credit.margin", "seed=one", "name.sub=1", "dpo.beta=-1"]
    first, *problems = refused(file, *overrides).splitlines()
    origins = [problem.strip().partition(": ")[0] for problem in problems]
    assert first == "8 settings are wrong:"
    lines = [f"{file}:2", f"{file}:4", f"{file}:6"]
    assert origins == [*lines, *(f"override {override}" for override in overrides)]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("environment.name=nomod:x", "No module named 'nomod'; modules are looked for"),
        ("environment.name=pytest:x", "module 'pytest' has no attribute 'x'"),
        ("environment.name=web", "unknown environment 'web'"),
        ("environment.name=:", "write module:attribute, as Python names both"),
        ("environment.name=..a:b", "write module:attribute, as Python names both"),
        ("method=rr0", "unknown method 'rr0': did you mean rro?"),
        ("explore.rollouts", "sets nothing: write key.sub=value"),
        ("seed.x=1", "seed is a value, not a section: set seed itself"),
        ("explore.sft=none", "unknown key explore.sft: did you mean rft? sft stands at the top"),
    ],
)
def test_an_override_says_once_what_it_sets(recipe, tmp_path, override, sentence):
    file = tmp_path / "recipe.toml"
    file.write_text('seed = 1\n[environment]\nname = "webshop"\n')
    message = refused(file, override)
    assert message.startswith(f"override {override}: {sentence}")
    assert "\n" not in message


def test_a_setting_of_the_sft_that_the_recipe_leaves_out_has_two_fixes(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('sft = "none"\n[environment]\nname = "webshop"\n')
    assert refused(file, "sft.epochs=1") == (
        'override sft.epochs=1: sft is a value, not a section: leave sft = "none" out, or set '
        "optimise.sft.epochs for the learner sft"
    )
    assert load_config(file, ["optimise.sft.epochs=1"]).sft is None


def test_a_setting_below_the_wrong_section_belongs_to_the_top(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('[environment]\nname = "webshop"\n[explore.rro]\nseed = 1\n[evaluate]\n')
    where = "stands at the top of a recipe, above the first [section]"
    message = refused(file, "evaluate.sft=none", "evaluate.model=1", "evaluate.taks=1")
    seed, sft, model, misspelt = message.splitlines()[1:]
    assert "unknown key explore.rro.seed: known keys are rollouts" in seed
    assert seed.endswith(f"; seed {where}")
    assert sft.endswith(f"; sft {where}")
    assert where not in model + misspelt


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("policy.ray.num_gpus=1.5", "must be 0, a part of at least 0.0001, or whole"),
        ("environment.ray.num_cpus=0.00001", "must be 0, a part of at least 0.0001"),
        ("policy.ray.resources={ GPU = 1 }", "GPU has no place here: see num_cpus"),
        ("policy.ray.resources={ a = 2.5 }", "a must be 0, a part of at least"),
        ("environment.ray.resources={ a = -1 }", "a must be 0, a part of at least"),
    ],
)
def test_what_ray_cannot_be_asked_for(tmp_path, override, sentence):
    file = tmp_path / "recipe.toml"
    file.write_text('[environment]\nname = "webshop"\n')
    assert refused(file, override).startswith(f"override {override}: {sentence}")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "",
        " ",
        ".",
        "..",
        "a\nb",
        "\x1b[31m",
        "x" * 101,
        "\u732b" * 70,
    ],
)
def test_a_name_that_is_no_folders_name_is_refused(tmp_path, name):
    file = tmp_path / "recipe.toml"
    file.write_text(dumps({"name": name, "environment": {"name": "webshop"}}))
    message = refused(file)
    assert message.startswith(f"{file}:1: name: ")
    assert message.endswith("use up to 100 letters, digits, - and _")
    assert len(message) < 300 + len(str(file))
    assert message.isprintable()


@pytest.mark.parametrize("name", ["run", "my run", "q-1.5", "\u00e9t\u00e9", "x" * 100])
def test_a_folders_name_is_taken(tmp_path, name):
    file = tmp_path / "recipe.toml"
    file.write_text(dumps({"name": name, "environment": {"name": "webshop"}}))
    assert load_config(file).name == name


def test_a_single_problem_is_one_sentence(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('[environment]\nname = "web"\n')
    message = refused(file)
    assert message.startswith(f"{file}:2: environment.name: unknown environment 'web'")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("experts.file=3", "experts.file must be a path, not 3"),
        ("environment.options.data=3", "environment.options.data must be a path, not 3"),
        ("environment.webshop=3", "environment.webshop must be a table"),
        ("environment.options.sample=3", "environment.options.sample must be a table, not 3"),
        ("explore.tasks=true", "explore.tasks must be a whole number of at least 1, not true"),
        ("dpo.learning_rate=inf", "dpo.learning_rate must be a number above 0, not inf"),
        ("policy.top_p=2", "policy.top_p must be a number above 0 and at most 1, not 2"),
        (
            "explore.pricing=sf",
            "must be one of policy, sft, prm, mixed, not 'sf' (did you mean sft?)",
        ),
        ("explore.adaptve.prior=1", "unknown key explore.adaptve: did you mean adaptive?"),
        ("explore.adaptive.first=0", "explore.adaptive.first must be a whole number"),
        ("modules=3", "modules must be a list of paths, not 3"),
        ("seed=2020-01-01", "seed must be a whole number, not 2020-01-01"),
        ("modules=['no-folder']", "no-folder is no folder"),
        (f"{'k' * 5000}=1", f"unknown key {'k' * 100}...: known keys are"),
    ],
)
def test_types_are_told_in_plain_words(tmp_path, override, sentence):
    file = tmp_path / "recipe.toml"
    file.write_text('[environment]\nname = "webshop"\n')
    message = refused(file, override)
    assert message.startswith(f"override {override}: ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import sys\nsys.exit(0)\n", "importing broken failed: SystemExit: 0"),
        ("x = 1\ny = nothing\n", "NameError: name 'nothing' is not defined"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_sentence(tmp_path, source, sentence):
    file = tmp_path / "recipe.toml"
    file.write_text('[environment]\nname = "broken:open_it"\n')
    (tmp_path / "broken.py").write_text(source)
    try:
        message = refused(file)
    finally:
        sys.path.remove(str(tmp_path))
    assert message.startswith(f"{file}:2: environment.name: ")
    assert "environment broken:open_it" not in message  # the line says it
    assert sentence in message


PLUGINS = """
from pydantic import BaseModel, Field, field_validator

class Fails(BaseModel):
    a: int = Field(default_factory=lambda: 1 / 0)

class Refuses(BaseModel):
    a: int = 0

    @field_validator("a")
    @classmethod
    def _look(cls, value):
        raise RuntimeError("in the validator")

def fails(options: Fails): ...
def refuses(options: Refuses): ...
def placed(a, /): ...
def letters(n: int, key: str): ...
"""


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("fails", ["its options fail: ZeroDivisionError: division by zero ("]),
        ("refuses", ["its options fail: RuntimeError: in the validator ("]),
        ("placed", ["its parameter a can only be given by position"]),
        (
            "letters",
            [
                "options.n must be a whole number, not 'x'",
                "unknown key environment.options.k",
                "environment.options.key must be text, not 3",
            ],
        ),
    ],
)
def test_options_of_ones_own_that_fail(tmp_path, monkeypatch, name, sentences):
    (tmp_path / "odd_options.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "recipe.toml"
    options = "n = 'x', key = 3, k = 1" if name == "letters" else "a = 1" * (name == "refuses")
    file.write_text(f"[environment]\nname = 'odd_options:{name}'\noptions = {{ {options} }}\n")
    message = refused(file)
    assert all(sentence in message for sentence in sentences)
    assert message.count(str(file)) == len(sentences)


INTERRUPTED = """
from pydantic import BaseModel, Field
from pydantic_core import SchemaError

def stopped():
    raise SchemaError('Error building "literal" validator:\\n  KeyboardInterrupt: (x.py)')

class Options(BaseModel):
    a: int = Field(default_factory=stopped)

def open_it(options: Options): ...
"""


def test_an_interrupt_that_pydantic_tells_as_a_mistake_is_an_interrupt(tmp_path, monkeypatch):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "recipe.toml"
    file.write_text("[environment]\nname = 'interrupted:open_it'\n")
    with pytest.raises(KeyboardInterrupt):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("x = " + "[" * 40 + "]" * 40, "nested too deeply"),
        (".".join(["a"] * 3000) + " = 1", "nested too deeply"),
        ("seed = " + "9" * 5000, "an integer is too large"),
        ("seed = " + "9" * 20, "an integer is too large"),
        ("seed = 0x" + "f" * 6000, "an integer is too large"),
        ("[[sft]]\nx = [{y = -99999999999999999999}]", "an integer is too large"),
    ],
)
def test_what_is_too_large_or_deep_for_a_recipe_is_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    message = refused(file)
    assert message.startswith(f"{file}: {sentence}")
    assert len(message) < 200 + len(str(file))
    file.write_text('[environment]\nname = "webshop"\n')
    if text.startswith("seed"):
        assert sentence in refused(file, text.replace(" ", ""))


def test_what_is_no_toml_names_the_line(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('name = "a"\nseed = \n')
    assert refused(file).startswith(f"{file}:2: not TOML")


def test_an_old_key_is_told_where_it_stands(tmp_path, caplog):
    file = tmp_path / "recipe.toml"
    file.write_text('[environment]\nname = "webshop"\n[explore]\nsiblings = "most"\n')
    assert f"{file}:4: credit.siblings must be one of lowest, all" in refused(file)
    assert f"{file}:4: explore.siblings is now credit.siblings" in caplog.text


keys = st.text(min_size=1, max_size=6) | st.sampled_from(["a", "b c", 'quo"te', "dot.ted"])
values = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=8) | st.lists(st.integers(), max_size=3),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=4))
@example({"\x1f\t": {"\\ \N{MEDIUM WHITE CIRCLE}": 1}})
def test_every_key_of_any_recipe_has_its_line(tree):
    text = dumps(tree)
    lines, found = text.splitlines(), key_lines(text)
    assert tomllib.loads(text) == tree
    for key in tree:
        assert (key,) in found
        assert 1 <= found[key,] <= max(1, len(lines))


@pytest.mark.parametrize("key", ["messages", "add_generation_prompt", "tools", "a b"])
def test_what_rro_gives_to_a_chat_template_itself_is_no_variable(recipe, key):
    recipe.write_text(f'[environment]\nname = "webshop"\n[model.chat_template_kwargs]\n"{key}" = 1')
    with pytest.raises(UsageError, match=rf"chat_template_kwargs.*{key} is no variable"):
        load_config(recipe)
