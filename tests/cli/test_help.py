"""The help of the command line: every command is listed, described and has an example."""

import re

import pytest

from rro.cli.main import main


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for command in (
        "quickstart",
        "run",
        "sft",
        "explore",
        "optimise",
        "evaluate",
        "compare",
        "play",
        "data",
        "verify",
    ):
        assert command in text


def subcommands(parser_help):
    """The names that a parser's help lists as its commands."""
    listed = re.findall(r"^    ([a-z-]+)\b", parser_help, re.MULTILINE)
    return [name for name in listed if name != "optimize"]


def test_every_command_has_a_description_and_an_example(capsys):
    names = subcommands(help_of(capsys))
    assert len(names) > 10
    for name in names:
        text = help_of(capsys, name)
        assert re.search(rf"example: rro {name}\b", " ".join(text.split())), name
        assert re.search(r"\n\n[A-Z].*\.\n", text, re.DOTALL), name


@pytest.mark.parametrize(
    "command",
    [
        ("recipes", "list"),
        ("recipes", "show"),
        ("data", "fetch"),
        ("data", "load"),
        ("data", "load", "intercode-sql"),
        ("verify", "webshop"),
        ("verify", "intercode-sql"),
    ],
)
def test_so_has_every_command_below_another(capsys, command):
    text = " ".join(help_of(capsys, *command).split())
    assert f"example: rro {' '.join(command)}" in text


@pytest.mark.parametrize("command", ["quickstart", "run", "check", "sft", "explore", "optimise"])
def test_help_describes_overrides_and_the_run_folder(capsys, command):
    text = " ".join(help_of(capsys, command).split())
    assert "key.sub=value a setting in place of the recipe's" in text
    assert "--out FOLDER run folder of a new run" in text


def test_help_tells_an_alias_once(capsys):
    assert help_of(capsys).count("optimize") == 1


def help_of(capsys, *command):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out
