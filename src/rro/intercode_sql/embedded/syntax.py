"""MySQL's lexical rules and grammar: what is a statement, and at which token another text stops to
be one.

The grammar is mysql.lark; mysql.json has the tables of its LALR(1) automaton, as MySQL's own parser
has, so that both stop at the same token. Knows nothing of tables, and builds no tree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from sqlglot.dialects.mysql import MySQL

from rro.intercode_sql.embedded.library import SIGNATURES
from rro.intercode_sql.engine import TOO_DEEP, SqlError, syntax_error

MAX_STACK, MAX_DEPTH, MAX_TOKENS, MAX_BARE_JOINS = 400, 60, 4_000, 8
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
    |(?P<CHARSET_NAME>_(?:utf8(?:mb[34])?|latin1|binary|ascii)(?=\s*['"]))
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


class Call(NamedTuple):
    """A call of a function that is no word of the grammar: its name and number of arguments."""

    name: str
    arguments: int


class Statement(NamedTuple):
    """A text that MySQL's grammar accepts."""

    text: str
    """The statement, with blanks in place of comments."""
    words: tuple[str, ...]
    """The kinds of its tokens."""
    calls: tuple[Call, ...]
    """The functions that it calls, in order of their ends."""


class _Tables(NamedTuple):
    rules: list[tuple[str, int]]
    """Symbol and length of each rule."""
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
    free = (folder / "keywords.txt").read_text(encoding="utf-8").split()
    words = {word.upper(): "RESERVED" for word in MySQL.Generator.RESERVED_KEYWORDS}
    words |= dict.fromkeys(free, "KEYWORD")
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
    if outcome.stopped is not None:
        raise _error(sql, *tokens[outcome.stopped][1:])
    calls = tuple([_call(sql, tokens[first:last]) for first, last in outcome.calls])
    return Statement(text, words, calls)


class _Outcome(NamedTuple):
    calls: list[tuple[int, int]]
    """Where the calls of functions begin and end, counted in tokens."""
    stopped: int | None = None
    """The token that the grammar does not accept."""
    error: str = ""


# Many statements differ only in their names and values.
@lru_cache(maxsize=4096)
def _outcome(words: tuple[str, ...]) -> _Outcome:
    """What the automaton makes of tokens of these kinds."""
    rules, states, others, _ = _tables()
    calls, stack, starts = list[tuple[int, int]](), [0], [0]
    for place, kind in enumerate(words):
        state = stack[-1]
        while (action := states[state].get(kind, others[state])) < 0:
            if action == _NONE:
                return _Outcome(calls, place)
            symbol, length = rules[-1 - action]
            if symbol == "plain_call":
                calls.append((starts[-length], place))
            elif symbol == "nameless":
                return _Outcome(calls, error=NAMELESS)
            if length > 1:
                del starts[1 - length :]
            del stack[-length:]
            state = states[stack[-1]][symbol]
            stack.append(state)
        stack.append(action)
        starts.append(place)
        if len(stack) > MAX_STACK:
            return _Outcome(calls, error=TOO_DEEP)
    return _Outcome(calls, error=TOO_DEEP if _is_too_large(words) else "")


def check_calls(calls: Iterable[Call], database: str) -> None:
    """Raises SqlError for a call of a function that MySQL does not have, or with another number of
    arguments."""
    for call in calls:
        name = call.name.upper()
        if name in _FUNCTIONS:
            raise SqlError(f"FUNCTION {database}.{call.name} does not exist. {_NAME_PARSING}")
        if name not in SIGNATURES:
            raise SqlError(f"FUNCTION {database}.{call.name} does not exist")
        if not SIGNATURES[name].least <= call.arguments <= SIGNATURES[name].most:
            raise SqlError(
                f"Incorrect parameter count in the call to native function '{call.name}'"
            )


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


def _call(sql: str, tokens: list[Token]) -> Call:
    depth = commas = 0
    for kind, _, _ in tokens[2:-1]:
        depth += (kind == "(") - (kind == ")")
        commas += kind == "," and depth == 0
    _, start, end = tokens[0]
    return Call(sql[start:end].strip("`"), commas + 1 if len(tokens) > 3 else 0)


def _is_too_large(words: Sequence[str]) -> bool:
    """Whether SQLGlot's parser would be overrun: it is recursive, and takes exponential time for
    joins without ON."""
    depth = deepest = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        deepest = max(deepest, depth)
    bare = words.count("JOIN") - words.count("ON")
    return deepest > MAX_DEPTH or len(words) > MAX_TOKENS or bare > MAX_BARE_JOINS


def _error(sql: str, start: int, end: int) -> SqlError:
    """MySQL's syntax error at a token. Its line is the one in which the token ends."""
    line = sql.count("\n", 0, end) + 1
    return SqlError(syntax_error(sql[start:], line))
