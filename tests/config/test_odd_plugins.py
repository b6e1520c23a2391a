"""Plug-ins of other packages that the listing and the schema cannot fully describe."""

import json
import tomllib
from importlib.metadata import EntryPoint

import pytest

from rro import plugins
from rro.config import Config, load_config
from rro.config.listing import as_page, as_toml
from rro.config.schema import json_schema


class Ruler:
    """Has no form in TOML."""


def measured(count: int, ruler: Ruler = Ruler(), sizes: tuple[int, ...] = (1, 2), **more):  # noqa: B008
    """Takes what only Python can give."""


@pytest.fixture
def door(monkeypatch):
    """The strategies' door with one more, `measured`."""
    door = plugins.Door("strategy", "rro.strategies")
    door.register("measured", measured)
    monkeypatch.setattr("rro.config.sections.ExploreConfig.door", door)


def test_what_toml_lacks_is_listed_without_a_default(door):
    text = as_toml(Config())
    table = text.partition("#[explore.measured]\n")[2].partition("\n\n")[0]
    assert [line for line in table.splitlines() if not line.startswith("# ")] == [
        "#count =", "#ruler =", "#sizes = [1, 2]",
    ]  # fmt: skip
    assert "| `count` | a whole number | required |  |" in as_page()


def test_what_json_lacks_is_accepted(door, caplog):
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$defs"]["explore.measured"] == {"type": "object"}
    assert "strategy measured" in caplog.text


def test_a_missing_module_is_logged_and_left_out(caplog, monkeypatch, tmp_path):
    broken = EntryPoint("broken", "a_module_that_is_missing:Strategy", "rro.strategies")
    names = plugins.Door("strategy", "rro.strategies")
    monkeypatch.setattr("rro.plugins.entry_points", lambda group: [broken])
    monkeypatch.setattr("rro.config.sections.ExploreConfig.door", names)
    text = as_toml(Config())
    assert "strategy broken is left out" in caplog.text
    (tmp_path / "listed.toml").write_text(text)
    assert load_config(tmp_path / "listed.toml", check=False).explore == Config().explore
    assert "broken" not in tomllib.loads(text)["explore"]
