"""Which statements are sent to a shared server: those that only read what episodes may
read, and whose answers do not change when they are replayed. Knows no connection."""

from __future__ import annotations

import re

from rro.intercode_sql.engine import (
    EMPTY,
    RANDOM,
    READ_ONLY,
    WRITES,
    SqlError,
    lexemes,
    syntax_error,
    volatile,
)

# A comment that the server executes.
_EXECUTED_COMMENT = re.compile(r"/\*M?!")
# First words of statements that only read, and what SHOW may show, or not.
_READS = {"SELECT", "WITH", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "USE", "VALUES", "TABLE", "("}
_SHOWN = {"TABLES", "COLUMNS", "FIELDS", "DATABASES", "SCHEMAS", "INDEX", "INDEXES", "KEYS"}
_NOT_SHOWN = """
    PROCESSLIST STATUS VARIABLES WARNINGS ERRORS COUNT ENGINE ENGINES GRANTS PRIVILEGES PROFILE
    PROFILES GLOBAL SESSION LOCAL OPEN TABLE BINARY BINLOG MASTER SLAVE REPLICA REPLICAS ALL
    RELAYLOG EVENTS TRIGGERS PROCEDURE FUNCTION PACKAGE PLUGINS EXPLAIN ANALYZE USER_STATISTICS
    INDEX_STATISTICS CLIENT_STATISTICS TABLE_STATISTICS STORAGE CHARACTER CHARSET COLLATION"""
_SYSTEM = {"MYSQL", "PERFORMANCE_SCHEMA", "SYS"}
# What may be read of information_schema.
_CATALOGUE = {"TABLES", "COLUMNS", "SCHEMATA", "STATISTICS", "KEY_COLUMN_USAGE", "VIEWS"}
_CATALOGUE |= {"TABLE_CONSTRAINTS", "REFERENTIAL_CONSTRAINTS"}
_ACCESS = "Access denied for user ''@'%' to database '{}'"


def vetted(sql: str) -> str:
    """The statement to send: without comments, which may hold hints, and with a constant for
    RAND(). Raises SqlError for a statement that does more than read, that reaches what other
    episodes or the server's administration have to do with, or whose answer may differ when it is
    replayed."""
    if error := volatile(sql):
        raise SqlError(error)
    kept = [(kind, " " if kind == "comment" else part) for kind, part in lexemes(sql)]
    if any(kind == "comment" and _EXECUTED_COMMENT.match(part) for kind, part in lexemes(sql)):
        raise SqlError(READ_ONLY)
    words = [
        "''" if kind == "text" else part.strip("`").upper() for kind, part in kept if part.strip()
    ]
    if not words:
        raise SqlError(EMPTY)
    _check_verb(words, sql)
    _check_words(words)
    sent = "".join(part for _, part in kept)
    return _RAND.sub(lambda match: match["text"] or str(RANDOM), sent)


# RAND() outside of texts and quoted names.
_RAND = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`[^`]*`)|\bRAND\s*\(\s*\)""",
    re.DOTALL | re.IGNORECASE,
)


def _check_verb(words: list[str], sql: str) -> None:
    if words[0] in WRITES:
        raise SqlError(READ_ONLY)
    if words[0] not in _READS:
        raise SqlError(syntax_error(sql))
    if words[0] == "SHOW":
        what = next((word for word in words[1:] if word not in ("FULL", "EXTENDED")), "")
        if what in _NOT_SHOWN.split():
            raise SqlError(f"Access denied; SHOW {what} is not available")
        if what not in _SHOWN and words[1:3] != ["CREATE", "TABLE"]:
            raise SqlError(syntax_error(sql[4:].lstrip()))
    if words[0] in ("EXPLAIN", "DESC", "DESCRIBE") and {"ANALYZE", "CONNECTION"} & set(words[1:5]):
        raise SqlError("Access denied; EXPLAIN shows the plan of a SELECT only")


def _check_words(words: list[str]) -> None:
    pairs = list(zip(words, [*words[1:], ""], strict=True))
    for (word, after), before in zip(pairs, ["", *words], strict=False):
        if word in ("INTO", "PROCEDURE") or (word, after) in _LOCKS:
            raise SqlError(READ_ONLY)
        opened = (
            after == "." or before == "USE" or (words[0] == "SHOW" and before in ("FROM", "IN"))
        )
        if word in _SYSTEM and opened:
            raise SqlError(_ACCESS.format(word.lower()))
        if word == "INFORMATION_SCHEMA" and before == "USE":
            raise SqlError(_ACCESS.format(word.lower()))
    for place, (word, after) in enumerate(pairs):
        if (word, after) == ("INFORMATION_SCHEMA", ".") and words[place + 2] not in _CATALOGUE:
            raise SqlError(_ACCESS.format(word.lower()))


_LOCKS = {("FOR", "UPDATE"), ("FOR", "SHARE"), ("LOCK", "IN"), ("VALUE", "FOR")}
