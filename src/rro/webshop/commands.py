"""WebShop's command: `rro verify webshop`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_commands(groups: Mapping[str, Any]) -> None:
    """Add a parser to the group `verify` of the command line."""
    parser = groups["verify"].add_parser(
        "webshop",
        help="WebShop",
        description="Replay recorded WebShop episodes.",
        epilog="example: rro verify webshop --data data/webshop-1k --episodes recorded.jsonl",
    )
    parser.set_defaults(command=_verify)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="folder with WebShop's files"
    )
    parser.add_argument("--episodes", type=Path, metavar="FILE", help="recorded episodes")
    parser.add_argument("--search", type=Path, metavar="FILE", help="recorded searches")
    parser.add_argument(
        "--state",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="recorded goals and prices",
    )


def _verify(options: argparse.Namespace) -> int:
    from rro.webshop.verify import run_verify

    return 0 if run_verify(options.data, options.episodes, options.search, options.state) else 1
