"""The JSON schema of a recipe, for editors. Made of the models of sections and of the options of
every registered plug-in; knows no setting by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, PydanticUserError

from rro.config.listing import plugins_of
from rro.config.old_keys import OLD_KEYS
from rro.config.plugin_options import plugin_sections
from rro.config.sections import Config
from rro.config.tables import PluginSection
from rro.plugins import Plugin

log = logging.getLogger(__name__)

Schema = dict[str, Any]
_DEFINITIONS = "$defs"


def json_schema() -> Schema:
    """The schema of a recipe (JSON Schema, draft 2020-12). A misspelt key is an error; an old key
    that still works is marked as deprecated."""
    schema = Config.model_json_schema()
    definitions = schema[_DEFINITIONS]
    for table, section in plugin_sections(Config()):
        _add_plugins(definitions[type(section).__name__], table, section, definitions)
    for old, new in OLD_KEYS.items():
        _add_old_key(schema, old.split("."), new)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A recipe of rro",
    }


def _add_plugins(owner: Schema, table: str, section: PluginSection, definitions: Schema) -> None:
    """Add a table for each plug-in to the schema of a section, and its options to `options` for
    where it is the one that is chosen."""
    properties = owner["properties"]
    owner["additionalProperties"] = False
    owner["allOf"] = []
    for plugin in plugins_of(section):
        name = f"{table}.{plugin.name}"
        definitions[name] = _options_schema(plugin, name, definitions)
        reference = {"$ref": f"#/{_DEFINITIONS}/{name}"}
        properties[plugin.name] = reference
        chosen: Schema = {"properties": {section.choice: {"const": plugin.name}}}
        if getattr(section, section.choice) != plugin.name:
            chosen["required"] = [section.choice]
        owner["allOf"].append({"if": chosen, "then": {"properties": {"options": reference}}})


def _options_schema(plugin: Plugin, name: str, definitions: Schema) -> Schema:
    """The schema of a plug-in's options; models nested in it become definitions."""
    model: type[BaseModel] = plugin.options_model
    named = (plugin.kind, plugin.name)
    try:
        schema = model.model_json_schema(ref_template=f"#/{_DEFINITIONS}/{name}.{{model}}")
    except PydanticUserError:
        log.warning("%s %s: the schema accepts any options: JSON lacks their types", *named)
        return {"type": "object"}
    for inner, definition in schema.pop(_DEFINITIONS, {}).items():
        definitions[f"{name}.{inner}"] = definition
    for old, new in getattr(plugin.factory, "old_names", {}).items():
        schema["properties"][old] = _deprecated(schema["properties"][new], new)
    return schema


def _add_old_key(schema: Schema, path: list[str], new: str) -> None:
    """Accept an old key wherever its new one is."""
    *parents, leaf = path
    found = _property(schema, new.split("."))
    owner = _property(schema, parents)
    if found is not None and owner is not None:
        _resolved(schema, owner)["properties"][leaf] = _deprecated(found, new)


def _property(schema: Schema, path: list[str]) -> Schema | None:
    node = schema
    for part in path:
        node = _resolved(schema, node).get("properties", {}).get(part)
        if node is None:
            return None
    return node


def _resolved(schema: Schema, node: Schema) -> Schema:
    reference = node.get("$ref")
    return schema[_DEFINITIONS][reference.rsplit("/", 1)[1]] if reference else node


def _deprecated(schema: Mapping[str, Any], new: str) -> Schema:
    return {**schema, "deprecated": True, "description": f"Now called {new}."}
