"""What every section of a recipe is: a table of settings, and one that chooses a plug-in. Knows no
setting."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rro import plugins
from rro.config.wording import expected


class Section(BaseModel):
    """A table of settings. Unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` is not taken for 1."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and expected(field).startswith(("a number", "a whole number")):
            raise PydanticCustomError("truth_value", "true or false is not a number")
        return value


class PluginSection(Section):
    """A table that chooses a plug-in. `[SECTION.options]` belongs to whichever is chosen,
    `[SECTION.NAME]` to the plug-in of that name alone, so that one recipe can hold the options of
    several."""

    model_config = ConfigDict(extra="allow")
    door: ClassVar[plugins.Door]
    choice: ClassVar[str] = "name"
    """The setting that names the plug-in."""
    shared: ClassVar[frozenset[str]] = frozenset()
    """Settings of the section that a plug-in receives too if it has an option of that name."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the plug-in that is chosen."""

    def options_of(self, plugin: plugins.Plugin) -> dict[str, Any]:
        """What the recipe sets for a plug-in: shared settings, then its own table, then
        `options`."""
        shared = {name: getattr(self, name) for name in self.shared & plugin.option_names()}
        given = {name: value for name, value in shared.items() if value is not None}
        return {**given, **(self.model_extra or {}).get(plugin.name, {}), **self.options}

    @model_validator(mode="after")
    def _known_tables(self) -> Self:
        """An extra key must be the table of a known plug-in: a misspelt setting is not taken for
        one."""
        for key, value in (self.model_extra or {}).items():
            if key not in self.door.names():
                raise PydanticCustomError("unknown_key", "unknown key {key}", {"key": key})
            if not isinstance(value, dict):
                raise PydanticCustomError("not_a_table", "{key} must be a table", {"key": key})
        return self
