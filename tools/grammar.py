"""Turns the embedded SQL engine's grammar into the tables of its LALR(1) automaton: `make grammar`.

Needs lark. A reduction is the default of its state where only one is possible, and a state that
does nothing but rename a symbol is skipped: neither changes the tree, or where a text is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lark import Lark
from lark.lexer import Lexer

FOLDER = Path(__file__).parents[1] / "src" / "rro" / "intercode_sql" / "embedded"
Row = dict[str, Any]


class NoLexer(Lexer):
    """The engine has its own."""

    def __init__(self, configuration: Any) -> None:
        pass

    def lex(self, data: Any) -> Iterator[Any]:
        raise NotImplementedError


def tables(grammar: str) -> dict[str, Any]:
    """The automaton: for each state what to do at a symbol (a state to go to, or -1 - the number of
    a rule to reduce by), with the default under ""; for each rule its symbol, its length, and the
    kind of its node or ""."""
    lark = Lark(grammar, parser="lalr", lexer=NoLexer)
    table = lark.parser.parser._parse_table  # type: ignore[attr-defined]
    names = {terminal.name: str(terminal.pattern.value) for terminal in lark.terminals}
    states = {
        state: _row({names.get(symbol, symbol): action for symbol, action in actions.items()})
        for state, actions in table.states.items()
    }
    _skip_renaming(states)
    return _numbered(states, table.start_states["start"])


def _row(actions: Row) -> Row:
    """The actions of a state: (False, a state to go to) or (True, a rule). If only one rule is
    possible, it is the default."""
    row = {symbol: (str(action) == "Reduce", to) for symbol, (action, to) in actions.items()}
    rules = {to for reduces, to in row.values() if reduces}
    if len(rules) == 1:
        shifts = {symbol: action for symbol, action in row.items() if not action[0]}
        row = {**shifts, "": (True, rules.pop())}
    return row


def _skip_renaming(states: dict[Any, Row]) -> None:
    """Where a state only renames the symbol that led to it, go on at once."""
    for row in states.values():
        for symbol in row:
            reduces, target = row[symbol]
            while not reduces and list(states[target]) == [""]:
                rule = states[target][""][1]
                if len(rule.expansion) != 1 or rule.alias:
                    break
                reduces, target = row[rule.origin.name]
            row[symbol] = (reduces, target)


def _numbered(states: dict[Any, Row], start: Any) -> dict[str, Any]:
    """States and rules by numbers, in the order in which they are met from the start."""
    numbers, rules, rows = {start: 0}, dict[Any, int](), []
    for state in (queue := [start]):
        row = {}
        for symbol, (reduces, target) in sorted(states[state].items()):
            if not reduces and target not in numbers:
                numbers[target] = len(numbers)
                queue.append(target)
            row[symbol] = -1 - rules.setdefault(target, len(rules)) if reduces else numbers[target]
        rows.append(row)
    named = [[rule.origin.name, len(rule.expansion), rule.alias or ""] for rule in rules]
    return {"rules": named, "states": rows}


def written(grammar: str) -> str:
    """The tables as text, with one state a line."""
    parts = tables(grammar)
    rows = ",\n".join(json.dumps(row) for row in parts["states"])
    return f'{{"rules": {json.dumps(parts["rules"])},\n"states": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    text = (FOLDER / "mysql.lark").read_text(encoding="utf-8")
    (FOLDER / "mysql.json").write_text(written(text), encoding="utf-8")
