"""The JSON schema takes every recipe of rro's, and refuses what loading refuses."""

import importlib.util
import json
import tomllib

import pytest

from rro.config.packaged import packaged_recipes
from rro.config.schema import json_schema

SCHEMA = json_schema()
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
}
CHECKED = {"exclusiveMinimum": "__gt__", "minimum": "__ge__", "maximum": "__le__"}
IGNORED = {"$schema", "$defs", "title", "description", "default", "deprecated", "format"}
HANDLED = {
    "$ref", "type", "const", "enum", "properties", "additionalProperties", "required", "items",
    "anyOf", "allOf", "if", "then", "exclusiveMaximum", *CHECKED,
}  # fmt: skip


def fits(value, schema):
    """Whether a value fits a schema: the keywords that ours uses, no others."""
    assert schema.keys() <= HANDLED | IGNORED, schema.keys() - HANDLED - IGNORED
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]):
        return False
    if "type" in schema and not is_a(value, schema["type"]):
        return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    if any(key in schema and not getattr(value, CHECKED[key])(schema[key]) for key in CHECKED):
        return False
    if "exclusiveMaximum" in schema and not value < schema["exclusiveMaximum"]:
        return False
    if "anyOf" in schema and not any(fits(value, choice) for choice in schema["anyOf"]):
        return False
    if not all(fits(value, part) for part in schema.get("allOf", [])):
        return False
    if "if" in schema and fits(value, schema["if"]) and not fits(value, schema["then"]):
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {})) for item in value)
    return not isinstance(value, dict) or table_fits(value, schema)


def table_fits(table, schema):
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    known = all(fits(table[key], properties[key]) for key in table.keys() & properties.keys())
    unknown = [table[key] for key in table.keys() - properties.keys()]
    allowed = not unknown if others is False else others is True or all(
        fits(value, others) for value in unknown
    )  # fmt: skip
    return known and allowed and table.keys() >= set(schema.get("required", ()))


def is_a(value, name):
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])


def valid(recipe):
    """Whether the schema takes it, by the check above and, where it is installed, jsonschema."""
    tree = tomllib.loads(recipe)
    verdict = fits(tree, SCHEMA)
    if importlib.util.find_spec("jsonschema"):
        import jsonschema

        validator = jsonschema.Draft202012Validator(SCHEMA)
        assert validator.is_valid(tree) == verdict
    return verdict


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_recipe_fits(name):
    assert valid(packaged_recipes()[name].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "recipe",
    [
        "",
        "[explore]\nstrategy = 'adaptive'\noptions = { max_error = 0.1 }",
        "[explore.options]\nrising = 'weak'",
        "[explore]\nstrategy = 'mine:Own'\noptions = { anything = 1 }",
        "[explore.adaptive]\nerror = 0.1",
        "[explore]\nrising = 'weak'\nmargin = 0.1",
        "[environment]\nname = 'webshop'\n[environment.options.sample]\nproducts = 3",
        "[policy.vllm.options]\nanything = [1]",
        "[model.lora]\nrank = 8\ntargets = ['q_proj']",
        "[optimise]\nlearner = 'dpo'\noptions = { beta = 0.2 }",
    ],
)
def test_what_loads_fits(recipe):
    assert valid(recipe)


@pytest.mark.parametrize(
    "recipe",
    [
        "sede = 1",
        "seed = 'one'",
        "[explore]\nrolouts = 3",
        "[explore]\nrollouts = 0",
        "[explore]\npricing = 'gold'",
        "[explore.adaptiv]\nmax_error = 0.1",
        "[explore.adaptive]\nmax_errors = 0.1",
        "[explore.adaptive]\nmax_error = 0.6",
        "[explore]\nstrategy = 'adaptive'\noptions = { rising = 'weak' }",
        "[explore.options]\nmax_error = 0.1",
        "[environment]\nname = 'webshop'\n[environment.options.sample]\nproduct = 3",
        "[model.lora]\nrang = 8",
        "[explore]\nrising = 'wek'",
    ],
)
def test_a_mistake_does_not(recipe):
    assert not valid(recipe)


def test_it_is_json_with_a_sentence_for_every_setting():
    schema = json.loads(json.dumps(SCHEMA))
    assert schema["$schema"].startswith("https://json-schema.org/")
    explore = schema["$defs"]["ExploreConfig"]
    assert explore["additionalProperties"] is False
    assert all("description" in explore["properties"][key] for key in ("strategy", "tasks"))
    assert explore["properties"]["rising"]["deprecated"] is True
