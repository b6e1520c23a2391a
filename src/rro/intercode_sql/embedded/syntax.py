"""MySQL's lexical rules and grammar: the tree of a statement, and at which token another text stops
to be one.

The grammar is mysql.lark; mysql.json has the tables of its LALR(1) automaton, as MySQL's own parser
has, so that both stop at the same token. Knows nothing of tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from rro.intercode_sql.embedded.library import SIGNATURES
from rro.intercode_sql.engine import TOO_DEEP, SqlError, syntax_error

MAX_STACK, MAX_DEPTH, MAX_TOKENS = 400, 60, 4_000
NAMELESS = "Every derived table must have its own alias"
# No action.
_NONE = -1_000_000
_NAMES = {"POINT": ".", "MEMBER": "IDENT", "QUOTED": "IDENT"}
_BLANKS = " \t\n\r\f\v"
_WORD = r"[0-9A-Za-z_$\x80-\U0010ffff]"
# The first kind that matches counts; the first two are the most frequent. A comment for a later
# version of MySQL is one; of a comment for this or an earlier one, the text belongs to the
# statement.
_TOKENS = re.compile(
    rf"""
    [ \t\n\r\f\v]*
    (?:(?P<PLAIN>(?<!\.)[ac-mo-wyzAC-MO-WYZ]{_WORD}*)
    |(?P<SIGN>[(),;*])
    |(?P<POINT>(?<=[`\w$])\.(?={_WORD})|\.(?=[A-Za-z_$\x80-\U0010ffff]))
    |(?P<MEMBER>(?<=[`\w$ ]\.){_WORD}+)
    |(?P<CHARSET_NAME>_(?:utf8(?:mb[34])?|latin1|binary|ascii)(?!{_WORD}))
    |(?P<STRING>(?:[nN](?='))?(?:'(?:[^'\\]|''|\\.)*'(?!')|"(?:[^"\\]|""|\\.)*"(?!")))
    |(?P<BINARY_LITERAL>0x[0-9A-Fa-f]+(?!{_WORD})|0b[01]+(?!{_WORD})
        |[xX]'(?:[0-9A-Fa-f]{{2}})*'|[bB]'[01]*')
    |(?P<NUMBER>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<INTEGER>\d+(?!{_WORD}))
    |(?P<WORD>(?![xXbB]'){_WORD}+)
    |(?P<QUOTED>`(?:[^`]|``)+`)
    |(?P<VARIABLE>@@?(?:[\w$.]+|'[^']*'|"[^"]*"|`[^`]+`))
    |(?P<COMMENT>\#[^\n]*|--(?=[\s\x00-\x1f]|$)[^\n]*|/\*(?!!).*?\*/
        |/\*!(?:9[1-9]\d{{3}}|\d{{6}}).*?\*/|/\*!(?:\d{{5}})?)
    |(?P<ASSIGN>:=)|(?P<ARROW_TEXT>->>)|(?P<ARROW>->)
    |(?P<OPERATOR><<|>>|[/%^]|&(?!&)|\|(?!\|))
    |(?P<COMPARE><=>|<=|>=|<>|!=|[<>](?![<>=!]))
    |(?P<PLUS_OR_MINUS>[+-])|(?P<TILDE>~)
    |(?P<OTHER>&&|\|\||\.|[=!](?![<>=!]))
    |(?P<ERROR>[<>=!]{{2}}|[^ \t\n\r\f\v]))
    """,
    re.VERBOSE | re.DOTALL,
)
# Names of functions that are words of the grammar if a bracket follows at once, and else names.
_FUNCTIONS = {
    name: f"{kind}_FN"
    for kind, names in {
        "SUM": "SUM MIN MAX",
        "PLAIN_SUM": "STD STDDEV STDDEV_POP STDDEV_SAMP VARIANCE VAR_POP VAR_SAMP BIT_AND BIT_OR "
        "BIT_XOR JSON_ARRAYAGG",
        "COUNT": "COUNT",
        "GROUP_CONCAT": "GROUP_CONCAT",
        "JSON_OBJECTAGG": "JSON_OBJECTAGG",
        "CURDATE": "CURDATE SESSION_USER SYSTEM_USER",
        "NOW": "NOW SYSDATE CURTIME",
        "CAST": "CAST",
        "ADDDATE": "ADDDATE SUBDATE",
        "DATE_ADD": "DATE_ADD DATE_SUB",
        "EXTRACT": "EXTRACT",
        "POSITION": "POSITION",
        "SUBSTRING": "SUBSTRING SUBSTR MID",
        "TRIM": "TRIM",
    }.items()
    for name in names.split()
}
_NOT_READING = {"INTO", "FOR", "LOCK"}
_NAME_PARSING = "Check the 'Function Name Parsing and Resolution' section in the Reference Manual"
# A token: its kind, which is a terminal of the grammar, and where it starts and ends.
Token = tuple[str, int, int]


class Node(NamedTuple):
    """A node of the tree: a rule of the grammar and what it consists of."""

    kind: str
    """The rule's name, or that of its alternative."""
    parts: tuple[Any, ...]
    """Nodes, and tokens as their numbers."""
    first: int
    """Its first token."""
    end: int
    """The token behind it."""

    def nodes(self) -> list[Node]:
        """The parts that are nodes, and those of lists of expressions among them."""
        nodes = list[Node]()
        for part in self.parts:
            if part.__class__ is Node:
                nodes += part.nodes() if part.kind == "exprs" else [part]
        return nodes

    def part(self, *kinds: str) -> Node | None:
        """The first part of one of the `kinds`."""
        return next(
            (part for part in self.parts if part.__class__ is Node and part.kind in kinds), None
        )


class Statement(NamedTuple):
    """A text that MySQL's grammar accepts."""

    text: str
    """The statement, with blanks in place of comments."""
    words: tuple[str, ...]
    """The kinds of its tokens."""
    tokens: Sequence[Token]
    """Its tokens."""
    tree: Node
    """Its tree."""
    named: Sequence[Node]
    """The nodes of functions whose names are no words of the grammar, of tables, and of common
    tables, in the order of their ends."""

    def token(self, number: int) -> str:
        """The text of a token."""
        _, start, end = self.tokens[number]
        return self.text[start:end]

    def name(self, number: int) -> str:
        """The name, or the text of a string, that a token stands for."""
        token = self.token(number)
        return unquoted(token) if token[-1] in "`'\"" else token

    def number(self, number: int) -> int:
        """The value of a token that is an integer, at most 2**62."""
        token = self.token(number)
        return min(int(token), 2**62) if len(token) < 1000 else 2**62

    def path(self, node: Node) -> list[str]:
        """The parts of a name with points."""
        return [self.name(part) for part in node.parts[::2]]

    def own_words(self, node: Node) -> list[str]:
        """The kinds of the tokens that are parts of a node themselves."""
        return [self.words[part] for part in node.parts if part.__class__ is int]

    def source(self, node: Node) -> str:
        """The text of a node."""
        return self.text[self.tokens[node.first][1] : self.tokens[node.end - 1][2]]


_ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}
_ESCAPES |= {"%": "\\%", "_": "\\_"}


def unquoted(token: str) -> str:
    """What stands in the quotes of a name or string."""
    quote = token[-1]
    text = token[token.index(quote) + 1 : -1].replace(quote * 2, quote)
    if "\\" not in text or quote == "`":
        return text
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text, flags=re.DOTALL)


class _Tables(NamedTuple):
    rules: list[tuple[str, int, str]]
    """Symbol and length of each rule, and the kind of its node."""
    states: list[dict[str, int]]
    """What to do at a symbol: go to a state, or reduce by rule -1 - n."""
    others: list[int]
    """What each state does at any other symbol."""
    words: dict[str, str]
    """The kind of each keyword."""


@cache
def _tables() -> _Tables:
    folder = files("rro.intercode_sql.embedded")
    rules, states = json.loads((folder / "mysql.json").read_text(encoding="utf-8")).values()
    free, _, reserved = (folder / "keywords.txt").read_text(encoding="utf-8").partition("\n\n")
    words = dict.fromkeys(reserved.split(), "RESERVED") | dict.fromkeys(free.split(), "KEYWORD")
    words |= {word: word for row in states for word in row if word.isupper()}
    others = [row.pop("", _NONE) for row in states]
    return _Tables(rules, states, others, words | _FUNCTIONS)


def parsed(sql: str) -> Statement:
    """The statement of a text. Raises SqlError with MySQL's message if MySQL's grammar does not
    accept it, or if it is too large to be translated."""
    text, tokens = _scanned(sql)
    words = tuple([kind for kind, _, _ in tokens])
    outcome = _outcome(words)
    if outcome.error:
        raise SqlError(outcome.error)
    if outcome.tree is None:
        raise _error(sql, *tokens[outcome.stopped][1:])
    return Statement(text, words, tokens, outcome.tree, outcome.named)


class _Outcome(NamedTuple):
    tree: Node | None = None
    named: Sequence[Node] = ()
    stopped: int = 0
    """The token that the grammar does not accept."""
    error: str = ""


# Lists, which the grammar nests.
_FLAT = {"items", "expr", "sum", "text", "row_values"}
_NAMED = {"plain_call", "table", "common_table"}


# Many statements differ only in their names and values.
@lru_cache(maxsize=4096)
def _outcome(words: tuple[str, ...]) -> _Outcome:
    """What the automaton makes of tokens of these kinds."""
    rules, states, others, _ = _tables()
    named, stack, values, starts = list[Node](), [0], list[Any](), list[int]()
    if _is_too_large(words):
        return _Outcome(error=TOO_DEEP)
    for place, kind in enumerate(words):
        state = stack[-1]
        while (action := states[state].get(kind, others[state])) < 0:
            if action == _NONE:
                return _Outcome(stopped=place)
            symbol, length, alias = rules[-1 - action]
            if length > 1 or alias:
                node = _node(alias or symbol, values[-length:], starts[-length], place)
                if symbol in _NAMED:
                    named.append(node)
                elif symbol == "nameless":
                    return _Outcome(error=NAMELESS)
                values[-length:] = [node]
                del starts[len(values) :]
            del stack[-length:]
            state = states[stack[-1]][symbol]
            stack.append(state)
        stack.append(action)
        values.append(place)
        starts.append(place)
        if len(stack) > MAX_STACK:
            return _Outcome(error=TOO_DEEP)
    return _Outcome(values[0], named)


def _node(kind: str, values: list[Any], first: int, end: int) -> Node:
    """A node of a rule, with the parts of the lists in it."""
    parts = list[Any]()
    for number, value in enumerate(values):
        if value.__class__ is Node and (
            value.kind[:2] == "__" or (not number and value.kind == kind and kind in _FLAT)
        ):
            parts += value.parts
        else:
            parts.append(value)
    return Node(kind, tuple(parts), first, end)


def check_calls(statement: Statement, database: str) -> None:
    """Raises SqlError for a call of a function that MySQL does not have, or with another number of
    arguments."""
    for node in statement.named:
        if node.kind != "function":
            continue
        name = statement.name(node.first)
        if name.upper() in _FUNCTIONS:
            raise SqlError(f"FUNCTION {database}.{name} does not exist. {_NAME_PARSING}")
        if name.upper() not in SIGNATURES:
            raise SqlError(f"FUNCTION {database}.{name} does not exist")
        signature = SIGNATURES[name.upper()]
        if not signature.least <= len(node.nodes()) <= signature.most:
            raise SqlError(f"Incorrect parameter count in the call to native function '{name}'")


def reads_only(statement: Statement) -> bool:
    """Whether a query neither writes a file or variable nor locks rows."""
    if _NOT_READING.isdisjoint(statement.words):
        return True
    pairs = set(zip(statement.words, statement.words[1:], strict=False))
    locks = {("FOR", "UPDATE"), ("FOR", "SHARE"), ("LOCK", "IN")}
    return "INTO" not in statement.words and not locks & pairs


def _scanned(sql: str) -> tuple[str, list[Token]]:
    """The text without comments, and its tokens, of which the last is "EOF"."""
    tokens, comments, words, before = list[Token](), list[tuple[int, int]](), _tables().words, ""
    opened, closed = False, -1
    for match in _TOKENS.finditer(sql, 0, len(sql.rstrip(_BLANKS))):
        kind = str(match.lastgroup)
        start, end = match.span(kind)
        if kind == "SIGN" and not opened and start != closed:
            kind = before = sql[start]
            tokens.append((kind, start, end))
            continue
        text = sql[start:end]
        opened = opened or (text[:3] == "/*!" and text[-2:] != "*/")
        if kind == "COMMENT" or start == closed:
            comments.append((start, end))
            continue
        if opened and sql.startswith("*/", start):
            opened, closed = False, end
            comments.append((start, end))
            continue
        if kind in ("PLAIN", "WORD") or (kind == "MEMBER" and before != "POINT"):
            kind = words.get(text.upper(), "IDENT") if text.isascii() else "IDENT"
            if kind.endswith("_FN") and sql[end : end + 1] != "(":
                kind = "IDENT"
        before, kind = kind, text if kind in ("SIGN", "OTHER") else _NAMES.get(kind, kind)
        tokens.append((kind, start, end))
    for start, end in comments:
        sql = f"{sql[:start]}{' ' * (end - start)}{sql[end:]}"
    return sql, [*tokens, ("EOF", len(sql), len(sql))]


def _is_too_large(words: Sequence[str]) -> bool:
    """Whether the tree would be too deep for functions that call themselves, or too large."""
    depth = deepest = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH or len(words) > MAX_TOKENS


def _error(sql: str, start: int, end: int) -> SqlError:
    """MySQL's syntax error at a token. Its line is the one in which the token ends."""
    line = sql.count("\n", 0, end) + 1
    return SqlError(syntax_error(sql[start:], line))
