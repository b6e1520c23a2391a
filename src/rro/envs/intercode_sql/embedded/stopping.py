"""Where MySQL's parser stops in a statement that is no SQL: the first word or sign that could not follow what came before.

Used only for the text of an error that is certain; so it may be rough, and knows operands and operators, no grammar.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import Token, TokenType


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPERATORS = words("= < > <= >= <> != <=> / % || && ^ | & << >> := AND OR XOR DIV MOD LIKE RLIKE REGEXP IN IS BETWEEN")
_PREFIXES = words("- + ~ ! NOT DISTINCT ALL BINARY INTERVAL EXISTS CASE")
_CLAUSES = frozenset({"SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "ON", "USING"})
_JOINS = words("JOIN INNER LEFT RIGHT CROSS OUTER NATURAL STRAIGHT_JOIN")
_AFTER_OPERAND = words(
    """ASC DESC AS END THEN ELSE WHEN COLLATE ESCAPE OFFSET OVER PARTITION SEPARATOR UNION EXCEPT INTERSECT WITH ROLLUP
    FOR FORCE USE IGNORE ROWS RANGE WINDOW LOCK INTO DAY MONTH YEAR HOUR MINUTE SECOND WEEK QUARTER NULL TRUE FALSE"""
)
_OPENING = frozenset({".", "WHEN", "THEN", "ELSE", "AS", "END"})  # an operand must follow
_TWO_NAMES = frozenset({"SELECT", "FROM", "ON"})  # clauses where a name may stand behind another as its alias


class _Reader:
    """What has been read: the clause of each open bracket, whether an operand is due, and how many stand in a row."""

    def __init__(self) -> None:
        self._clauses, self._names, self._due = ["SELECT"], 0, True

    def stops_at(self, token: Token) -> bool:
        """Whether the token cannot stand here; if it can, it has been read."""
        word, kind = token.text.upper(), token.token_type
        quoted = kind in (TokenType.STRING, TokenType.IDENTIFIER)
        if kind is TokenType.L_PAREN:
            self._clauses.append("")
            self._due, self._names = True, 0
        elif kind is TokenType.R_PAREN:
            if self._due and self._names:
                return True
            self._clauses[:] = self._clauses[:-1] or [""]
            self._due, self._names = False, 1
        elif not quoted and (word in _OPERATORS or word in _CLAUSES or word in _JOINS or word == ","):
            return self._operator(word)
        elif not quoted and (word in _PREFIXES or word in _AFTER_OPERAND or word in ".*"):
            self._due = (self._due and word in _PREFIXES) or word in _OPENING
            self._names = 0 if word in (".", "AS") else self._names
        else:
            return self._operand(kind)
        return False

    def _operator(self, word: str) -> bool:
        fits = word in ("SELECT", "ON", "IN") or word in _JOINS
        if self._due and not fits and (self._names or word in _OPERATORS):
            return True
        if word in _CLAUSES:
            self._clauses[-1] = word
        self._due, self._names = True, int(word in _OPERATORS)
        return False

    def _operand(self, kind: TokenType) -> bool:
        most = 2 if self._clauses[-1] in _TWO_NAMES else 1
        if not self._due and self._names >= most and kind is not TokenType.STRING:
            return True
        self._due, self._names = False, 1 if self._due else self._names + 1
        return False


def stopping_place(sql: str, tokens: Sequence[Token], limit: int) -> int:
    """The start of the first token before `limit` that cannot stand where it does; `limit` where all can."""
    reader = _Reader()
    for token in tokens:
        if token.start >= limit:
            break
        if reader.stops_at(token):
            return int(token.start)
    return min(limit, len(sql))
