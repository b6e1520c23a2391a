"""Statements that the embedded engine's grammar derives at random: each is answered, and none by an
unforeseen error."""

import logging
import random
from pathlib import Path

import pytest
from sql_toys import write_dump

from rro.intercode_sql import embedded
from rro.intercode_sql.embedded.library import SIGNATURES
from rro.intercode_sql.embedded.sqlite import SqliteEngine

# What stands for the terminals that are no words. "~" is where no blank may follow.
SAMPLES = {
    "IDENT": "customer purchase id name price born c p `item` rating upper abs concat round",
    "STRING": "'a%' 'Anna' '2020-01-02' '1.5' \"x\" '%Y'",
    "INTEGER": "0 1 2 7",
    "NUMBER": "1.5 2e1 .5",
    "BINARY_LITERAL": "0x41 b'1'",
    "CHARSET_NAME": "_utf8mb4",
    "VARIABLE": "@x",
    "ASSIGN": ":=",
    "COMPARE": "< >= <> <=>",
    "OPERATOR": "/ % ^ & | << >>",
    "PLUS_OR_MINUS": "+ -",
    "TILDE": "!",
    "ARROW": "->",
    "ARROW_TEXT": "->>",
    "SUM_FN": "SUM~ MIN~ MAX~",
    "PLAIN_SUM_FN": "STD~ VARIANCE~ BIT_OR~",
    "COUNT_FN": "COUNT~",
    "GROUP_CONCAT_FN": "GROUP_CONCAT~",
    "JSON_OBJECTAGG_FN": "JSON_OBJECTAGG~",
    "CURDATE_FN": "CURDATE~",
    "NOW_FN": "NOW~ CURTIME~",
    "CAST_FN": "CAST~",
    "ADDDATE_FN": "ADDDATE~ SUBDATE~",
    "DATE_ADD_FN": "DATE_ADD~ DATE_SUB~",
    "EXTRACT_FN": "EXTRACT~",
    "POSITION_FN": "POSITION~",
    "SUBSTRING_FN": "SUBSTRING~ MID~",
    "TRIM_FN": "TRIM~",
    "KEYWORD": "value",
    "EOF": "",
}
# Names that are mostly there.
NAMES = {
    "table": ["customer", "customer", "zoo.animal"],
    "name": ["id", "name", "city", "born", "height", "weight", "customer.id", "legs"],
    "from": ["FROM customer"],
    "into": [""],
}
# What stands for symbols where a statement becomes long.
SHORT = {"expr": "id", "query_parens": "(SELECT 1)", "table_reference": "customer"}


def derivations(lark):
    names = {terminal.name: str(terminal.pattern.value) for terminal in lark.terminals}
    rules = {}
    for rule in lark.rules:
        expansion = [(names.get(part.name, part.name), part.is_term) for part in rule.expansion]
        rules.setdefault(rule.origin.name, []).append(expansion)
    return rules


def derived(rules, draw, symbol, budget):
    """Words that the grammar derives from a symbol, of about `budget` symbols."""
    budget[0] -= 1
    if budget[0] < 0 and symbol in SHORT:
        return [SHORT[symbol]]
    if symbol in NAMES and draw.random() < 0.9:
        return [draw.choice(NAMES[symbol])]
    if symbol == "plain_call":
        name, signature = draw.choice(sorted(SIGNATURES.items()))
        count = draw.randint(signature.least, min(signature.most, signature.least + 2))
        operands = [" ".join(derived(rules, draw, "expr", budget)) for _ in range(count)]
        return [f"{name.lower()}({', '.join(operands)})"]
    expansions = rules[symbol]
    if budget[0] < 0:
        shortest = min(map(len, expansions))
        expansions = [one for one in expansions if len(one) == shortest]
    words = []
    for part, is_terminal in draw.choice(expansions):
        if not is_terminal:
            words += derived(rules, draw, part, budget)
        else:
            words.append(draw.choice(SAMPLES[part].split() or [""]) if part in SAMPLES else part)
    return words


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_the_grammar_derives_is_answered(tmp_path, caplog, seed):
    lark = pytest.importorskip("lark")
    grammar = (Path(embedded.__file__).parent / "mysql.lark").read_text(encoding="utf-8")
    rules = derivations(lark.Lark(grammar, parser="lalr", lexer="basic", lexer_callbacks={}))
    draw, engine = random.Random(seed), SqliteEngine(write_dump(tmp_path), tmp_path / "cache")
    count, rows = 5_000 if seed else 300, 0
    with caplog.at_level(logging.WARNING, logger="rro"):
        for _ in range(count):
            symbol = draw.choice(("statement", "select", "select", "select"))
            words = derived(rules, draw, symbol, [draw.choice((15, 40, 100))])
            result = engine.execute("shop", " ".join(words).replace("~ ", ""))
            rows += result.error is None
    engine.close()
    assert [record.getMessage() for record in caplog.records] == []
    assert rows > 0.05 * count
