"""InterCode-SQL's commands: `rro verify intercode-sql` and `rro data load intercode-sql`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rro.errors import UsageError


def add_commands(groups: Mapping[str, Any]) -> None:
    """Add parsers to the groups `verify` and `load` of the command line."""
    verify = groups["verify"].add_parser(
        "intercode-sql",
        help="InterCode-SQL",
        description="Replay recorded statements, episodes and answers of a server.",
        epilog="example: rro verify intercode-sql --data data/intercode-sql --episodes "
        "recorded.jsonl",
    )
    verify.set_defaults(command=_verify)
    verify.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder with the questions and the dump",
    )
    verify.add_argument("--statements", type=Path, metavar="FILE", help="recorded statements")
    verify.add_argument("--episodes", type=Path, metavar="FILE", help="recorded episodes")
    verify.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="statements with a server's rows or error number",
    )
    verify.add_argument(
        "--engine",
        default="sqlite",
        metavar="URL",
        help="URL of a server (default: the embedded engine)",
    )
    load = groups["load"].add_parser(
        "intercode-sql",
        help="InterCode-SQL",
        description="Load the databases into a MySQL or MariaDB server.",
        epilog="example: rro data load intercode-sql mysql://user@127.0.0.1:3306",
    )
    load.set_defaults(command=_load)
    load.add_argument(
        "url", help="mysql://user@host:port; the password is read from $RRO_SQL_PASSWORD"
    )
    load.add_argument(
        "--data", type=Path, metavar="FOLDER", help="folder of the dump (default: the fetched data)"
    )


def _load(options: argparse.Namespace) -> None:
    from rro.environments.data_sets import data_folder
    from rro.intercode_sql.data import DUMP_FILE, NAME
    from rro.intercode_sql.server_dump import load_dump

    tables = load_dump(options.url, (options.data or data_folder(NAME)) / DUMP_FILE)
    print(f"{tables} tables filled")


def _verify(options: argparse.Namespace) -> None:
    from rro.intercode_sql.verify import run_verify

    if not (options.statements or options.episodes or options.answers):
        raise UsageError(
            "nothing to replay: give --statements FILE, --episodes FILE or --answers FILE"
        )
    run_verify(
        options.data,
        options.statements,
        options.episodes,
        options.engine,
        answers=options.answers,
    )
