"""The commands that look after runs: status and gc."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rro.cli.commands import Parsers, add_command, begin
from rro.errors import printable


def add_commands(commands: Parsers) -> None:
    """Add status and gc to the command line."""
    status = add_command(
        commands,
        "status",
        _status,
        "how a run stands: stage, rate, cost so far and expected, failures",
        "rro status runs/one --json",
    )
    status.add_argument("run", type=Path, help="a run folder")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    collect = add_command(
        commands,
        "gc",
        _collect,
        "remove from a run folder what neither resuming nor reporting needs",
        "rro gc runs/one --dry-run",
    )
    collect.add_argument("run", type=Path, help="a run folder that no process works on")
    collect.add_argument("--dry-run", action="store_true", help="only list it")


def _status(options: argparse.Namespace) -> None:
    from rro.runs.folder import RunFolder
    from rro.runs.status import as_lines, read_status

    status = read_status(RunFolder.open(options.run))
    lines = [json.dumps(status)] if options.json else as_lines(status)
    print(printable("\n".join(lines)))


def _collect(options: argparse.Namespace) -> None:
    begin("opening", options.run)

    from rro.pipeline.run import Run
    from rro.pipeline.upkeep import collect
    from rro.runs.folder import RunFolder
    from rro.runs.journal import Journal

    folder = RunFolder.open(options.run)
    with Journal(folder.journal, create=False) as journal:
        removed = collect(Run(folder, journal), dry=options.dry_run)
    for path, size in removed:
        print(printable(f"{size / 1e6:10,.1f} MB  {path.relative_to(folder.path)}"))
    total = sum(size for _, size in removed) / 1e6
    print(f"{total:10,.1f} MB {'could go' if options.dry_run else 'removed'}")
