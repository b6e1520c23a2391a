"""What an interrupt leaves half made is freed without a word."""

import sys

from rro.cli.main import main

MODULE = '''
class Loop:
    """Interrupted in its constructor, like asyncio's event loop, whose deletion then fails."""

    freed = 0

    def __init__(self):
        raise KeyboardInterrupt
        self.closed = False

    def __del__(self):
        Loop.freed += 1
        self.closed


def open_half():
    """A benchmark that is interrupted."""
    return Loop()
'''


def test_a_half_made_object_says_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "half_made.py").write_text(MODULE)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[environment]\nname = "half_made:open_half"\n[model.tiny]\n')
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    assert main(["check", str(recipe)]) == 130
    assert sys.modules["half_made"].Loop.freed == 1
    assert heard == []
    assert "rro: interrupted" in capsys.readouterr().err
    assert sys.unraisablehook == heard.append
