"""What an interrupt leaves half made is freed without a word, and what a library makes of it is
still an interrupt."""

import sys

import pytest

from rro.cli.main import main

HALF_MADE = """
import asyncio


class Loop(asyncio.BaseEventLoop):
    def __init__(self):
        raise KeyboardInterrupt


def open_it():
    return Loop()
"""
TURNED = """
from pydantic_core import SchemaError


def open_it():
    raise SchemaError("Error building `literal` serializer: KeyboardInterrupt: ")
"""


@pytest.mark.parametrize("module", [HALF_MADE, TURNED], ids=["half_made", "turned"])
def test_an_interrupt_is_one_word(tmp_path, monkeypatch, capsys, request, module):
    name = f"interrupted_{request.node.callspec.id}"
    (tmp_path / f"{name}.py").write_text(module)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[environment]\nname = "{name}:open_it"\n[model.tiny]\n')
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    words = ["evaluate", str(recipe)] if module is TURNED else ["check", str(recipe)]
    assert main([*words, *(["--out", str(tmp_path / "run")] if module is TURNED else [])]) == 130
    assert heard == []
    assert "rro: interrupted" in capsys.readouterr().err
    assert sys.unraisablehook == heard.append
