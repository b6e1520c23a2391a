"""From text to SQLGlot's tree, or MySQL's syntax error. SQLGlot forgives much that MySQL does not: this module does not.

It knows MySQL's reserved words and the order of clauses, and where MySQL's parser would stop; the grammar is SQLGlot's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import ParseError, TokenError

from rro.envs.intercode_sql.embedded.stopping import stopping_place, words
from rro.envs.intercode_sql.engine import EMPTY, MAX_LENGTH, TOO_LONG

Node = exp.Expr  # of SQLGlot's tree

MAX_TOKENS = 4_000
MAX_BARE_JOINS = 8  # in a row, without ON or USING
MAX_DEPTH = 60  # brackets, CASEs and prefix operators around one operand
NOWHERE = 1 << 30
TOO_DEEP = "Thread stack overrun: the statement is nested too deeply"
_NEAR = 80
_CALL = "~"  # marks a function's name, so that SQLGlot takes none for one that it knows
_DIALECT = MySQL()


_SPECIAL = words(
    "CAST CONVERT EXTRACT GROUP_CONCAT TRIM SUBSTR SUBSTRING POSITION IF INTERVAL EXISTS ANY ALL SOME IN VALUES CASE ROW"
)  # words before a bracket with a syntax of their own
_NEVER = words(
    """ACCESSIBLE ADD ALTER ANALYZE ASENSITIVE BEFORE CALL CASCADE CHANGE CHECK COLUMN CONDITION CONSTRAINT CONTINUE CREATE
    CUBE CURSOR DATABASES DECLARE DELAYED DELETE DESCRIBE DETERMINISTIC DROP EACH ELSEIF EMPTY ENCLOSED ESCAPED EXIT EXPLAIN
    FETCH FOREIGN FULLTEXT FUNCTION GENERATED GET GRANT INFILE INOUT INSENSITIVE ITERATE KEYS KILL LEAVE LINEAR LINES LOAD
    LONG LOOP LOW_PRIORITY MANUAL MAXVALUE MODIFIES OPTIMIZE OPTION OPTIONALLY OUT OUTFILE PARALLEL PRIMARY PROCEDURE PURGE
    QUALIFY READ READS READ_WRITE REFERENCES RELEASE RENAME REQUIRE RESIGNAL RESTRICT RETURN REVOKE SCHEMAS SENSITIVE SHOW
    SIGNAL SPATIAL SPECIFIC SQL SQLEXCEPTION SQLSTATE SQLWARNING SSL STARTING STORED SYSTEM TABLESAMPLE TERMINATED TO TRIGGER
    UNDO UNIQUE UNLOCK USAGE VARYING VIRTUAL WHILE WRITE ZEROFILL"""
)  # reserved words that no query holds outside of quotes
_NO_NAMES = words("TABLE KEY INDEX GROUP ORDER DESC ASC LIKE GROUPS RANGE ROWS ROW OF INTO USE SET WINDOW WITH TO")
_CALLED = words(
    """RANK DENSE_RANK ROW_NUMBER NTILE LAG LEAD FIRST_VALUE LAST_VALUE NTH_VALUE CUME_DIST PERCENT_RANK GROUPING DATABASE
    SCHEMA REPEAT MATCH"""
)  # reserved words that only begin a call
_TIGHT = words(
    """COUNT SUM AVG MIN MAX STD STDDEV VARIANCE GROUP_CONCAT CAST SUBSTRING SUBSTR MID TRIM NOW CURDATE CURTIME EXTRACT
    POSITION DATE_ADD DATE_SUB ADDDATE SUBDATE BIT_AND BIT_OR BIT_XOR"""
)  # functions whose bracket must follow at once
_CASTS = words("BINARY CHAR CHARACTER NCHAR DATE DATETIME TIME YEAR DECIMAL DEC DOUBLE FLOAT REAL SIGNED UNSIGNED JSON")
_BEGINNINGS = words("SELECT WITH ( VALUES TABLE")
_JOIN_WORDS = words("INNER LEFT RIGHT CROSS OUTER NATURAL FULL")
_CLAUSES = {
    word: place
    for place, word in enumerate(
        ("SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "WINDOW", "ORDER BY", "LIMIT", "FOR")
    )
}
_WITHIN_CALLS = words("FROM FOR") | {"ORDER BY"}  # EXTRACT(YEAR FROM d), GROUP_CONCAT(x ORDER BY y), OVER (ORDER BY z)
_QUOTED = (TokenType.STRING, TokenType.IDENTIFIER)
_SET_OPERATIONS = (TokenType.UNION, TokenType.EXCEPT, TokenType.INTERSECT)
_PREFIX = frozenset({TokenType.NOT, TokenType.DASH, TokenType.TILDE, TokenType.CASE, TokenType.PLUS})
_NOT_CALLED = frozenset(
    getattr(TokenType, name)
    for name in (
        "STRING", "IDENTIFIER", "NUMBER", "FROM", "WHERE", "AND", "OR", "NOT", "SELECT", "ON", "USING", "JOIN", "HAVING",
        "WHEN", "THEN", "ELSE", "ALIAS", "UNION", "EXCEPT", "INTERSECT", "DISTINCT", "IN", "LIKE", "BETWEEN", "IS", "OVER",
        "PARTITION_BY", "GROUP_BY", "ORDER_BY", "LIMIT", "OFFSET", "DIV", "XOR", "RLIKE", "CASE", "END", "WITH", "CROSS",
        "INNER", "OUTER", "NATURAL", "STRAIGHT_JOIN", "EXISTS", "ALL", "ANY", "SOME", "COMMA", "ESCAPE", "COLLATE",
    )
)  # fmt: skip
_PIECES = re.compile(
    r"""(?P<bad>\b[bB]'(?![01]*')|\b[xX]'(?!(?:[0-9a-fA-F]{2})*')) | '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `[^`]*`
    | /\*.*?\*/ | --[ \t\n].*?(?:\n|$) | \#.*?(?:\n|$) | (?P<open>['"`])""",
    re.DOTALL | re.VERBOSE,
)


class SqlError(Exception):
    """A statement that MySQL answers with an error; the text is MySQL's message."""


def cleaned(sql: str) -> str:
    """The text that the server parses: without blanks around it and semicolons behind it."""
    return sql.strip().rstrip("; \t\r\n")


def error_near(sql: str, start: int) -> SqlError:
    """MySQL's syntax error at a place of the text."""
    line = sql.count("\n", 0, start) + 1
    return SqlError(
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right "
        f"syntax to use near '{sql[start : start + _NEAR]}' at line {line}"
    )


def parse(sql: str) -> Node:
    """The tree of one cleaned statement. Calls are Anonymous nodes, but for those with a syntax of their own: `called` names
    the function. Raises SqlError."""
    if len(sql) > MAX_LENGTH:
        raise SqlError(TOO_LONG)
    tokens = _tokens(sql)
    if not tokens:
        raise SqlError(EMPTY)
    wrong = min(_wrong_word(tokens), _wrong_clause(tokens))
    if wrong < NOWHERE:
        raise error_near(sql, stopping_place(sql, tokens, wrong))
    for token, following in pairwise(tokens):
        if following.token_type is TokenType.L_PAREN and _is_call(token):
            _check_tight(token, following)
            token.text = _CALL + token.text
    try:
        trees = _DIALECT.parser().parse(tokens, sql)
    except ParseError as error:
        raise error_near(sql, stopping_place(sql, tokens, _place(tokens, error))) from None
    except RecursionError:
        raise SqlError(TOO_DEEP) from None
    if len(trees) != 1 or trees[0] is None:
        raise error_near(sql, next((t.end + 1 for t in tokens if t.token_type is TokenType.SEMICOLON), len(sql)))
    return trees[0]


def called(node: exp.Anonymous, as_written: bool = False) -> str:
    """The name of a called function, in capitals or as written."""
    name = str(node.this).removeprefix(_CALL)
    return name if as_written else name.upper()


# --- tokens


def _tokens(sql: str) -> list[Token]:
    try:
        tokens = list(_DIALECT.tokenize(sql))
    except TokenError:
        raise error_near(sql, _unreadable(sql)) from None
    depth = prefixes = 0
    for token in tokens:  # what nests too deeply would overrun the parser's stack
        kind = token.token_type
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        prefixes = prefixes + 1 if kind in _PREFIX else 0
        if depth + prefixes > MAX_DEPTH:
            raise SqlError(TOO_DEEP)
    if len(tokens) > MAX_TOKENS:
        raise SqlError(TOO_DEEP)
    return tokens


def _unreadable(sql: str) -> int:
    """Where a text that is no row of tokens goes wrong: at an open quote or bad digits, unless the parser stops before."""
    place = next((found.start() for found in _PIECES.finditer(sql) if found["bad"] or found["open"]), len(sql))
    try:
        return stopping_place(sql, _DIALECT.tokenize(sql[:place]), place)
    except TokenError:
        return place


def _is_call(token: Token) -> bool:
    """Whether a token before a bracket names a function."""
    return token.token_type not in _NOT_CALLED and token.text[:1].isalpha() and token.text.upper() not in _SPECIAL


def _check_tight(token: Token, bracket: Token) -> None:
    word = token.text.upper()
    if word in _TIGHT and bracket.start > token.end + 1:  # then it is a call of a stored function, which there is not
        raise SqlError(
            f"FUNCTION {{database}}.{word} does not exist. Check the 'Function Name Parsing and Resolution' section in the "
            "Reference Manual"
        )


def _place(tokens: Sequence[Token], error: ParseError) -> int:
    """Where SQLGlot stopped: it names line and last column of the token. NOWHERE for the last one: then more was wanted."""
    found: dict[str, Any] = error.errors[0] if error.errors else {}
    for token in tokens[:-1]:
        if token.line == found.get("line") and token.col == found.get("col"):
            return int(token.start)
    return NOWHERE


# --- words out of place


def _wrong_word(tokens: Sequence[Token]) -> int:
    """The place of the first word that MySQL reserves for something else than it is used for."""
    if tokens[0].text.upper() not in _BEGINNINGS:
        return int(tokens[0].start)
    for place, token in enumerate(tokens):
        rule = _RULES.get(token.text.upper())
        if rule is not None and token.token_type not in _QUOTED and not (place and tokens[place - 1].text == "."):
            found = rule(tokens, place)
            if found < NOWHERE:
                return found
    return NOWHERE


def _word(tokens: Sequence[Token], place: int) -> str:
    """The token there as a word in capitals; "" beyond the end, a quote for what is quoted."""
    if not 0 <= place < len(tokens):
        return ""
    return "'" if tokens[place].token_type in _QUOTED else tokens[place].text.upper()


def _never(tokens: Sequence[Token], place: int) -> int:
    return int(tokens[place].start)


def _named(tokens: Sequence[Token], place: int) -> int:
    """FROM and JOIN: no reserved word is a table's name."""
    return int(tokens[place + 1].start) if _word(tokens, place + 1) in _NO_NAMES else NOWHERE


def _uncalled(tokens: Sequence[Token], place: int) -> int:
    """A word that only begins a call, without its bracket: MySQL notices after it, but where a name is due at once."""
    if _word(tokens, place + 1) in ("(", ""):
        return NOWHERE
    return int(tokens[place if _word(tokens, place - 1) in ("FROM", "JOIN", "AS") else place + 1].start)


def _torn(tokens: Sequence[Token], place: int) -> int:
    """COUNT (*): with the bracket torn off it is a stored function's name, and those take no star."""
    loose = _word(tokens, place + 1) == "(" and tokens[place + 1].start > tokens[place].end + 1
    return int(tokens[place + 2].start) if loose and _word(tokens, place + 2) in ("*", "DISTINCT") else NOWHERE


def _truth(tokens: Sequence[Token], place: int) -> int:
    """IS: only NULL, TRUE, FALSE and UNKNOWN may follow."""
    place += 2 if _word(tokens, place + 1) == "NOT" else 1
    wrong = _word(tokens, place) not in ("NULL", "TRUE", "FALSE", "UNKNOWN", "")
    return int(tokens[place].start) if wrong else NOWHERE


def _cast(tokens: Sequence[Token], place: int) -> int:
    """AS within CAST: not all types are ones to cast to."""
    depth, start = 0, place
    while start > 0 and depth < 1:
        start -= 1
        depth += {"(": 1, ")": -1}.get(_word(tokens, start), 0)
    is_cast = depth == 1 and _word(tokens, start - 1) == "CAST"
    return int(tokens[place + 1].start) if is_cast and _word(tokens, place + 1) not in _CASTS | {""} else NOWHERE


def _empty(tokens: Sequence[Token], place: int) -> int:
    """SELECT and DISTINCT: something must be selected."""
    return _end(tokens, place + 1) if _word(tokens, place + 1) in ("", "FROM", ")", "WHERE", ",") else NOWHERE


def _listed(tokens: Sequence[Token], place: int) -> int:
    """IN: a bracket must follow, with something in it; but for POSITION and SHOW, which have an IN of their own."""
    if _word(tokens, place + 1) != "(":
        return _end(tokens, place + 1) if _word(tokens, place - 2) != "(" else NOWHERE
    return _end(tokens, place + 2) if _word(tokens, place + 2) in (")", "") else NOWHERE


def _end(tokens: Sequence[Token], place: int) -> int:
    """The start of a token, or the end of the text."""
    return int(tokens[place].start if place < len(tokens) else tokens[-1].end + 1)


_RULES: dict[str, Callable[[Sequence[Token], int], int]] = {
    **dict.fromkeys(_NEVER, _never),
    **dict.fromkeys(_CALLED, _uncalled),
    **dict.fromkeys(_TIGHT, _torn),
    "FROM": _named,
    "JOIN": _named,
    "IS": _truth,
    "IN": _listed,
    "SELECT": _empty,
    "DISTINCT": _empty,
    "AS": _cast,
}


@dataclass
class _Level:
    """Between two brackets: the latest clause, the joins since the last ON, and whether an outer join waits for its ON."""

    clause: int = -1
    joins: int = 0
    waits: bool = False


def _wrong_clause(tokens: Sequence[Token]) -> int:
    """The place of the first clause out of order, or join without its condition; the end where brackets are left open."""
    levels = [_Level()]
    for place, token in enumerate(tokens):
        kind = token.token_type
        if kind is TokenType.L_PAREN:
            levels.append(_Level())
        elif kind is TokenType.R_PAREN:
            if levels.pop().waits or not levels:
                return int(token.start)
        elif kind not in _QUOTED and _word(tokens, place - 1) != ".":
            level, nested = levels[-1], len(levels) > 1
            wrong = min(_clause_fault(tokens, place, level, nested), _join_fault(tokens, place, level))
            if wrong < NOWHERE:
                return wrong
    unfinished = len(levels) > 1 or levels[-1].waits
    return int(tokens[-1].end) + 1 if unfinished else NOWHERE


def _clause_fault(tokens: Sequence[Token], place: int, level: _Level, nested: bool) -> int:
    """Whether the token may stand after the level's latest clause, which it may become. Its place if not."""
    token, word, last = tokens[place], tokens[place].text.upper(), level.clause
    if token.token_type in _SET_OPERATIONS:
        wrong = level.waits or last >= _CLAUSES["ORDER BY"]
        level.clause, level.joins = -1, 0
        return int(token.start) if wrong else NOWHERE
    if word in _CLAUSES and not (last == -1 and nested and word in _WITHIN_CALLS):
        level.clause = max(last, _CLAUSES[word])
        return int(token.start) if level.waits or _CLAUSES[word] <= last else NOWHERE
    return int(token.start) if word == "*" and last == 0 and _word(tokens, place - 1) == "," else NOWHERE


def _join_fault(tokens: Sequence[Token], place: int, level: _Level) -> int:
    """Joins belong to FROM; an outer one needs its condition before the next begins. (SQLGlot takes exponential time for a
    row of joins without any, so there must not be many.)"""
    word, first = tokens[place].text.upper(), place
    if word in ("ON", "USING"):
        level.joins, level.waits = 0, False
    if word != "JOIN":
        return NOWHERE
    while _word(tokens, first - 1) in _JOIN_WORDS:
        first -= 1
    if level.waits or level.clause > _CLAUSES["FROM"]:
        return int(tokens[first].start)
    level.joins += 1
    level.waits = any(_word(tokens, before) in ("LEFT", "RIGHT") for before in range(first, place))
    level.waits &= _word(tokens, first) != "NATURAL"
    if level.joins > MAX_BARE_JOINS:
        raise SqlError(TOO_DEEP)
    return NOWHERE
