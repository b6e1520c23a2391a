"""What an interrupt leaves half made is freed without a word, and what a library makes of it is
still an interrupt."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_core import SchemaError

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


def test_an_interrupt_outside_of_contained_code_is_one_word(monkeypatch, capsys):
    def turned(*_):
        raise SchemaError("Error building `literal` serializer: KeyboardInterrupt: ")

    monkeypatch.setattr("rro.config.load_config", turned)
    assert main(["run", "quickstart"]) == 130
    assert main(["config", "quickstart"]) == 130
    assert "rro: interrupted" in capsys.readouterr().err


IN_A_TEXT = """
def open_it():
    exec("import os, signal\\nos.kill(os.getpid(), signal.{})\\nfor _ in range(9): pass")
"""


@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_python_m_rro_keeps_the_exit_code(tmp_path, sent, code):
    """The interrupt lands where modules make dataclasses: in the `exec` of a text."""
    (tmp_path / "own.py").write_text(IN_A_TEXT.format(sent))
    (tmp_path / "recipe.toml").write_text('[environment]\nname = "own:open_it"\n[model.tiny]\n')
    source = Path(__file__).parents[2] / "src"
    ended = subprocess.run(
        [sys.executable, "-m", "rro", "evaluate", "recipe.toml", "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{source}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        # as a script's shell starts what it puts into the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
