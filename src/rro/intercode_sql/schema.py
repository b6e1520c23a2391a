"""A database's schema below a question: names of tables, and of columns, as the engine lists them.

Knows an engine, neither episodes nor rewards."""

from __future__ import annotations

from typing import Literal

from rro.intercode_sql.engine import Engine

Schema = Literal["none", "tables", "columns"]


def schema_of(engine: Engine, database: str, schema: Schema) -> str:
    """What an agent is told of a database: "" for "none"; its tables, one a line, for "tables";
    each with its columns for "columns"."""
    if schema == "none":
        return ""
    listed = engine.execute(database, "SHOW TABLES").rows or ()
    tables = [str(row[0]) for row in listed]
    if schema == "columns":
        tables = [f"{table} ({', '.join(_columns(engine, database, table))})" for table in tables]
    return "\n".join(["Tables of the database:", *tables])


def _columns(engine: Engine, database: str, table: str) -> list[str]:
    shown = engine.execute(database, f"SHOW COLUMNS FROM `{table}`").rows or ()
    return [str(row[0]) for row in shown]
