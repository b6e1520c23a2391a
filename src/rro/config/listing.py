"""Every setting of a recipe with its value, default, type and meaning: `rro config` as TOML, and
the reference page as Markdown.

All of it is read from the models of sections and of plug-ins' options. Knows no setting by name.
"""

from __future__ import annotations

import inspect
import logging
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from rro.config.plugin_options import plugin_sections
from rro.config.sections import Config
from rro.config.tables import PluginSection
from rro.config.wording import expected, model_in
from rro.errors import UsageError
from rro.plugins import Plugin, search_in

log = logging.getLogger(__name__)

_WIDTH = 100
# A longer list has a line for each item.
_SHORT = 80
_ABSENT: tuple[Any, ...] = (None, [], {}, "")
TEMPLATE = """\
Every setting of a recipe. Lines that begin with # and no space are settings that are not set, with
their defaults; remove the # to set them. A table such as [explore.NAME] holds the options of one
plug-in, whether or not it is chosen; [explore.options] holds those of the one that is."""
"""The comment above a listing."""
_PAGE = """\
# Settings

A recipe is a TOML file. Each table below is one of its tables; what a recipe leaves out keeps its
default. Any setting can also be given on the command line, as `table.key=value`:

```
rro run quickstart explore.tasks=50 explore.budget.seconds=600 model.lora.rank=8
rro config quickstart            # every setting of a recipe, with its value and meaning
rro config > mine.toml           # a recipe with every setting at its default
rro config --schema > rro.json   # a JSON schema; begin a recipe with "#:schema rro.json"
```

Environments, policy backends, strategies, credits and learners are plug-ins with options of their
own. A table such as `[explore.NAME]` holds the options of one of them, so that a recipe can hold
those of several; `[explore.options]` holds those of the one that is chosen, and wins.

This page is printed by `rro config --page`, from the descriptions in the source."""


@dataclass(frozen=True)
class Setting:
    """One key of a recipe."""

    key: str
    field: FieldInfo
    value: Any
    """What it is set to, otherwise its default, as TOML has it; None if there is neither."""
    is_set: bool
    """Whether a recipe with this listing sets it."""

    @property
    def default(self) -> Any:
        """As TOML has it; None without one."""
        return _default(self.field)


@dataclass(frozen=True)
class Table:
    """One table of a recipe, without the tables in it."""

    name: tuple[str, ...]
    text: str
    settings: list[Setting]
    is_set: bool
    """Whether a recipe with this listing has the table."""


def tables(config: Config) -> Iterator[Table]:
    """Every table of a recipe with the values of `config`: the settings outside of tables, each
    section, and the options of every plug-in that is registered or chosen."""
    search_in(config.modules)
    sections = dict(plugin_sections(config))
    plain = config.model_dump(mode="json")
    top = {
        key: field
        for key, field in Config.model_fields.items()
        if not model_in(field.annotation) or isinstance(plain[key], str)
    }
    text = "Settings at the top of the file, before any table."
    yield Table((), text, [_setting(key, field, plain) for key, field in top.items()], True)
    for name, field in Config.model_fields.items():
        model = model_in(field.annotation)
        if model is not None:
            yield from _model_tables((name,), model, plain[name])
            if name in sections:
                yield from _plugin_tables(name, sections[name])


def plugins_of(section: PluginSection) -> Iterator[Plugin]:
    """The plug-ins that a section can choose from and the one that it chooses. One that cannot be
    imported is logged and left out."""
    chosen = getattr(section, section.choice)
    for name in dict.fromkeys([*section.door.names(), *([chosen] if chosen else [])]):
        try:
            yield section.door.find(name)
        except (ImportError, AttributeError, UsageError) as error:
            log.warning("%s %s is left out: %s", section.door.kind, name, error)


def as_toml(config: Config, about: str = TEMPLATE) -> str:
    """A recipe that sets what `config` sets, with every other setting as a comment. `about` is the
    comment that it begins with."""
    blocks = ["\n".join(_comment(about))]
    blocks += ["\n".join(_toml_lines(table)) for table in tables(config)]
    return "\n\n".join(blocks) + "\n"


def as_page() -> str:
    """The reference page of all settings, in Markdown."""
    blocks = [_PAGE]
    blocks += ["\n".join(_page_lines(table)) for table in tables(Config())]
    return "\n\n".join(blocks) + "\n"


def _model_tables(
    name: tuple[str, ...], model: type[BaseModel], given: Any, text: str = ""
) -> Iterator[Table]:
    """The table of a model and those nested in it; `given` is what is set, or None."""
    values = given if isinstance(given, Mapping) else {}
    settings, nested = [], []
    for key, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None:
            nested.append(((*name, key), inner, values.get(key)))
        elif not (key == "options" and issubclass(model, PluginSection)):
            settings.append(_setting(key, field, values))
    if settings:
        yield Table(name, text or _text(model), settings, isinstance(given, Mapping))
    for arguments in nested:
        yield from _model_tables(*arguments)


def _plugin_tables(name: str, section: PluginSection) -> Iterator[Table]:
    chosen = getattr(section, section.choice)
    sections = {model_in(field.annotation) for field in Config.model_fields.values()}
    for plugin in plugins_of(section):
        if plugin.options_model in sections:
            continue
        text = f"Options of the {plugin.kind} {plugin.name}. {_text(plugin.options_model)}"
        own = (section.model_extra or {}).get(plugin.name)
        options = section.options if plugin.name == chosen else {}
        if plugin.name in section.door.names() and (own or not options):
            yield from _model_tables(
                (name, plugin.name), plugin.options_model, _new_names(plugin, own), text
            )
        if options:
            yield from _model_tables(
                (name, "options"), plugin.options_model, _new_names(plugin, options), text
            )


def _new_names(plugin: Plugin, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    names = getattr(plugin.factory, "old_names", {})
    return {names.get(key, key): value for key, value in options.items()} if options else None


def _setting(key: str, field: FieldInfo, given: Mapping[str, Any]) -> Setting:
    default = _default(field)
    value = given.get(key, default)
    absent = value is None or (value in ([], {}) and value == default)
    return Setting(key, field, value, key in given and not absent)


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    return (
        None
        if default is PydanticUndefined
        else to_jsonable_python(default, fallback=lambda _: None)
    )


def _text(described: Any) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(described) or "").partition("\n\n")[0].split())


def _toml_lines(table: Table) -> Iterator[str]:
    if table.name:
        yield from _comment(table.text)
        yield f"{'' if table.is_set else '#'}[{_dotted(table.name)}]"
    for setting in table.settings:
        yield from _comment(_meaning(setting))
        mark = "" if setting.is_set else "#"
        value = "" if setting.value is None else f" {_value(setting.value)}"
        yield from (mark + line for line in f"{_dotted([setting.key])} ={value}".split("\n"))


def _meaning(setting: Setting) -> str:
    """What a comment says of a setting: its sentences, what it takes and its default."""
    takes = expected(setting.field)
    changed = setting.is_set and setting.value != setting.default
    if changed and setting.default not in _ABSENT and not model_in(setting.field.annotation):
        takes += f"; default {_value(setting.default)}"
    return f"{_described(setting)} ({takes})".strip()


def _described(setting: Setting) -> str:
    return " ".join((setting.field.description or "").split())


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _value(value: Any) -> str:
    """A value in TOML; tables are inline."""
    if isinstance(value, dict):
        pairs = [f"{_dotted([key])} = {_value(item)}" for key, item in value.items()]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list):
        items = [_value(item) for item in value]
        line = f"[{', '.join(items)}]"
        return (
            line
            if len(line) <= _SHORT
            else "\n".join(["[", *(f"    {item}," for item in items), "]"])
        )
    return tomli_w.dumps({"value": value}).strip().removeprefix("value = ")


def _dotted(parts: Iterable[str]) -> str:
    """A key of TOML, with the parts quoted that need it."""
    return ".".join(
        part if re.fullmatch(r"[\w-]+", part, re.ASCII) else _value(part) for part in parts
    )


def _page_lines(table: Table) -> Iterator[str]:
    heading = f"`[{_dotted(table.name)}]`" if table.name else "Top of the file"
    yield f"{'#' * (1 + max(1, len(table.name)))} {heading}\n"
    yield f"{table.text}\n"
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    for setting in table.settings:
        default = "" if setting.default in _ABSENT else f"`{_value(setting.default)}`"
        if setting.field.is_required():
            default = "required"
        cells = (f"`{setting.key}`", expected(setting.field), default, _described(setting))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
