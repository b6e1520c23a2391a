"""MySQL's functions as SQLite's SQL, by name: how many operands of what sort, the expression, and the result's type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rro.envs.intercode_sql.embedded import dates
from rro.envs.intercode_sql.embedded.names import Expr, made
from rro.envs.intercode_sql.embedded.schema import Kind, Type
from rro.envs.intercode_sql.embedded.stopping import words
from rro.envs.intercode_sql.embedded.syntax import SqlError
from rro.envs.intercode_sql.embedded.values import (
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    TEXT,
    TIME,
    as_number,
    as_text,
    common_type,
    compared,
    converted,
    number_type,
    string,
    truth,
)

VERSION = "9.7.0"


@dataclass(frozen=True, slots=True)
class Call:
    """`operands`: t text, n number, r as it is, x by its key; ? begins the optional ones, * repeats the last.
    `sql` holds {0} {1} ... or, for all of them, {all}."""

    operands: str
    sql: str
    type: Type


def _parts(unit: str) -> Call:
    return Call("t", f"date_part('{unit}', {{0}})", TEXT if unit in ("DAYNAME", "MONTHNAME") else INT)


_NOW, _TODAY, _CLOCK = (
    string(dates.show(dates.NOW)),
    string(dates.NOW.date().isoformat()),
    string(dates.NOW.time().isoformat()),
)

CALLS: dict[str, Call] = {
    "CONCAT": Call("t*", "concat({all})", TEXT),
    "CONCAT_WS": Call("tt*", "concat_ws_text({all})", TEXT),
    "LENGTH": Call("t", "byte_length({0})", INT),
    "CHAR_LENGTH": Call("t", "length({0})", INT),
    "UPPER": Call("t", "upper_text({0})", TEXT),
    "LOWER": Call("t", "lower_text({0})", TEXT),
    "LTRIM": Call("t", "ltrim({0}, ' ')", TEXT),
    "RTRIM": Call("t", "rtrim({0}, ' ')", TEXT),
    "SUBSTRING": Call("tn?n", "substring({all})", TEXT),
    "LEFT": Call("tn", "substring({0}, 1, {1})", TEXT),
    "RIGHT": Call("tn", "substring({0}, -min(length({0}), max({1}, 0)), {1})", TEXT),
    "REPLACE": Call("ttt", "replace({0}, {1}, {2})", TEXT),
    "REVERSE": Call("t", "reversed_text({0})", TEXT),
    "LPAD": Call("tnt", "padded({0}, {1}, {2}, 1)", TEXT),
    "RPAD": Call("tnt", "padded({0}, {1}, {2}, 0)", TEXT),
    "REPEAT": Call("tn", "repeated({0}, {1})", TEXT),
    "SPACE": Call("n", "repeated(' ', {0})", TEXT),
    "LOCATE": Call("tt?n", "locate({all})", INT),
    "INSTR": Call("tt", "locate({1}, {0})", INT),
    "SUBSTRING_INDEX": Call("ttn", "substring_index({0}, {1}, {2})", TEXT),
    "ASCII": Call("t", "code_of({0})", INT),
    "HEX": Call("r", "hexadecimal({0})", TEXT),
    "STRCMP": Call("xx", "(({0} > {1}) - ({0} < {1}))", INT),
    "FORMAT": Call("nn?t", "with_commas({0}, {1})", TEXT),
    "REGEXP_LIKE": Call("tt?t", "regexp_found({0}, {1}, 0)", INT),
    "REGEXP_REPLACE": Call("ttt", "regexp_replaced({0}, {1}, {2})", TEXT),
    "SIGN": Call("n", "(({0} > 0) - ({0} < 0))", INT),
    "SQRT": Call("n", "root({0})", DOUBLE),
    "POWER": Call("nn", "power({0}, {1})", DOUBLE),
    "EXP": Call("n", "exponential({0})", DOUBLE),
    "LN": Call("n", "logarithm({0})", DOUBLE),
    "LOG2": Call("n", "logarithm({0}, 2)", DOUBLE),
    "LOG10": Call("n", "logarithm({0}, 10)", DOUBLE),
    "PI": Call("", "3.141592653589793", Type(Kind.DOUBLE, 6)),
    "RAND": Call("?n", "random_number()", DOUBLE),
    "ISNULL": Call("r", "({0} IS NULL)", INT),
    "DATABASE": Call("", "{database}", TEXT),
    "USER": Call("", "'rro@localhost'", TEXT),
    "VERSION": Call("", string(VERSION), TEXT),
    "NOW": Call("?n", _NOW, DATETIME),
    "CURDATE": Call("", _TODAY, DATE),
    "CURTIME": Call("?n", _CLOCK, TIME),
    "DATE": Call("t", "to_date({0})", DATE),
    "TIME": Call("t", "to_time({0})", TIME),
    "TIMESTAMP": Call("t", "to_datetime({0})", DATETIME),
    "DATE_FORMAT": Call("tt", "date_text({0}, {1})", TEXT),
    "STR_TO_DATE": Call("tt", "date_from_text({0}, {1})", DATETIME),
    "DATEDIFF": Call("tt", "days_between({0}, {1})", INT),
    "LAST_DAY": Call("t", "last_day({0})", DATE),
    "FROM_UNIXTIME": Call("n", "from_unixtime({0})", DATETIME),
    "UNIX_TIMESTAMP": Call("?t", "date_part('UNIX_TIMESTAMP', {0})", INT),
    **{name: _parts(name) for name in (
        "YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "QUARTER", "DAYOFWEEK", "WEEKDAY", "DAYOFYEAR",
        "DAYNAME", "MONTHNAME", "WEEK",
    )},
}  # fmt: skip
_ALIASES = {
    "UCASE": "UPPER", "LCASE": "LOWER", "SUBSTR": "SUBSTRING", "MID": "SUBSTRING", "OCTET_LENGTH": "LENGTH",
    "CHARACTER_LENGTH": "CHAR_LENGTH", "POW": "POWER", "DAYOFMONTH": "DAY", "SCHEMA": "DATABASE", "CURRENT_USER": "USER",
    "SESSION_USER": "USER", "SYSTEM_USER": "USER", "CURRENT_DATE": "CURDATE", "CURRENT_TIME": "CURTIME",
    "CURRENT_TIMESTAMP": "NOW", "LOCALTIME": "NOW", "LOCALTIMESTAMP": "NOW", "SYSDATE": "NOW", "UTC_TIMESTAMP": "NOW",
    "UTC_DATE": "CURDATE", "UTC_TIME": "CURTIME", "CEILING": "CEIL", "STDDEV": "STD", "STDDEV_POP": "STD",
    "VAR_POP": "VARIANCE", "ADDDATE": "DATE_ADD", "SUBDATE": "DATE_SUB",
}  # fmt: skip
AGGREGATES = words("COUNT SUM AVG MIN MAX GROUP_CONCAT STD STDDEV_SAMP VARIANCE VAR_SAMP ANY_VALUE")
DATE_ARITHMETIC = frozenset({"DATE_ADD", "DATE_SUB", "TIMESTAMPDIFF"})
WINDOWED = {"ROW_NUMBER": INT, "RANK": INT, "DENSE_RANK": INT, "NTILE": INT, "CUME_DIST": DOUBLE, "PERCENT_RANK": DOUBLE,
            "LAG": None, "LEAD": None, "FIRST_VALUE": None, "LAST_VALUE": None, "NTH_VALUE": None}  # fmt: skip


def canonical(name: str) -> str:
    return _ALIASES.get(name, name)


def known(name: str) -> bool:
    """Whether this engine knows the function."""
    name = canonical(name)
    return any(name in names for names in (CALLS, _COMPOSED, AGGREGATES, WINDOWED, DATE_ARITHMETIC, ("MOD", "ROW")))


def call(name: str, operands: Sequence[Expr], database: str) -> Expr:
    """A call of an ordinary function. Raises SqlError for a wrong number of operands."""
    if composed := _COMPOSED.get(name):
        low, high, build = composed
        if not low <= len(operands) <= high:
            raise wrong_count(name)
        return build(operands)
    form = CALLS[name]
    needed, _, optional = form.operands.partition("?")
    sorts = (needed + optional).replace("*", "")
    most = len(operands) if "*" in form.operands else len(sorts)
    if not len(needed.replace("*", "")) <= len(operands) <= most:
        raise wrong_count(name)
    sorts += sorts[-1:] * (len(operands) - len(sorts))
    given = [_operand(sort, operand) for sort, operand in zip(sorts, operands, strict=False)]
    if name == "UNIX_TIMESTAMP" and not given:
        given = [_NOW]
    return made(form.sql.format(*given, all=", ".join(given), database=string(database)), form.type, *operands)


def wrong_count(name: str) -> SqlError:
    return SqlError(f"Incorrect parameter count in the call to native function '{name}'")


def _operand(sort: str, expr: Expr) -> str:
    match sort:
        case "t":
            return as_text(expr)
        case "n":
            return as_number(expr)
    return expr.by if sort == "x" else expr.sql


def choice(cases: Sequence[tuple[str, Expr]], otherwise: Expr, *conditions: Expr) -> Expr:
    """CASE WHEN ... THEN ... ELSE ... END with the branches brought to a common type."""
    results = [result for _, result in cases] + [otherwise]
    kind = common_type([result.type for result in results])
    branches = " ".join(f"WHEN {condition} THEN {converted(result, kind)}" for condition, result in cases)
    sql = f"CASE {branches} ELSE {converted(otherwise, kind)} END"
    return made(f"({sql})", kind, *conditions, *results)


def _if(operands: Sequence[Expr]) -> Expr:
    condition, yes, no = operands
    return choice([(truth(condition), yes)], no, condition)


def _coalesce(operands: Sequence[Expr]) -> Expr:
    kind = common_type([operand.type for operand in operands])
    given = [converted(operand, kind) for operand in operands]
    return made(f"coalesce({', '.join(given)})" if len(given) > 1 else given[0], kind, *operands)


def _nullif(operands: Sequence[Expr]) -> Expr:
    one, other = operands
    return made(f"(CASE WHEN {compared('=', one, other).sql} THEN NULL ELSE {one.sql} END)", one.type, one, other)


def _extreme(name: str) -> Callable[[Sequence[Expr]], Expr]:
    def build(operands: Sequence[Expr]) -> Expr:
        kind = common_type([operand.type for operand in operands])
        given = [converted(operand, kind) for operand in operands]
        if kind.kind is Kind.TEXT:
            given[0] += " COLLATE general_ci"
        return made(f"{name}({', '.join(given)})", kind, *operands)

    return build


def _whole(name: str) -> Callable[[Sequence[Expr]], Expr]:
    def build(operands: Sequence[Expr]) -> Expr:
        kind = number_type(operands[0]).kind
        exact = kind in (Kind.INT, Kind.DECIMAL)
        sql = f"{name}({as_number(operands[0])})"
        return made(f"CAST({sql} AS INTEGER)" if exact else sql, INT if exact else Type(Kind.DOUBLE, 0), *operands)

    return build


def _round(operands: Sequence[Expr]) -> Expr:
    value, kind = as_number(operands[0]), number_type(operands[0])
    digits = operands[1].literal if len(operands) > 1 else "0"
    exact = int(kind.kind in (Kind.INT, Kind.DECIMAL))
    sql = f"rounded({value}, {as_number(operands[1]) if len(operands) > 1 else 0}, {exact})"
    return _to_scale(sql, kind, digits, operands)


def _truncate(operands: Sequence[Expr]) -> Expr:
    sql = f"truncated({as_number(operands[0])}, {as_number(operands[1])})"
    return _to_scale(sql, number_type(operands[0]), operands[1].literal, operands)


def _to_scale(sql: str, kind: Type, digits: str | None, operands: Sequence[Expr]) -> Expr:
    scale = max(0, min(30, int(float(digits)))) if digits and digits.replace(".", "").isdigit() else None
    if kind.kind is Kind.INT:
        return made(f"CAST({sql} AS INTEGER)", INT, *operands)
    if kind.kind is Kind.DECIMAL:
        kept = (kind.scale or 0) if scale is None else scale
        return made(sql, Type(Kind.DECIMAL, kept), *operands)
    return made(sql, Type(Kind.DOUBLE, scale), *operands)


def _abs(operands: Sequence[Expr]) -> Expr:
    return made(f"abs({as_number(operands[0])})", number_type(operands[0]), *operands)


def _log(operands: Sequence[Expr]) -> Expr:
    return made(f"logarithm({', '.join(as_number(operand) for operand in reversed(operands))})", DOUBLE, *operands)


def _field(operands: Sequence[Expr]) -> Expr:
    wanted, *others = operands
    cases = " ".join(f"WHEN {compared('=', wanted, other).sql} THEN {n}" for n, other in enumerate(others, 1))
    return made(f"(CASE {cases} ELSE 0 END)", INT, *operands)


_MANY = 1000
_COMPOSED: dict[str, tuple[int, int, Callable[[Sequence[Expr]], Expr]]] = {
    "IF": (3, 3, _if),
    "IFNULL": (2, 2, _coalesce),
    "COALESCE": (1, _MANY, _coalesce),
    "NULLIF": (2, 2, _nullif),
    "GREATEST": (2, _MANY, _extreme("max")),
    "LEAST": (2, _MANY, _extreme("min")),
    "CEIL": (1, 1, _whole("ceil")),
    "FLOOR": (1, 1, _whole("floor")),
    "ROUND": (1, 2, _round),
    "TRUNCATE": (2, 2, _truncate),
    "ABS": (1, 1, _abs),
    "LOG": (1, 2, _log),
    "FIELD": (2, _MANY, _field),
}
