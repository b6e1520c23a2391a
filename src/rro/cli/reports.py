"""The commands that show runs: compare, report and view."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rro.cli.commands import Parsers, add_command, begin
from rro.errors import UsageError


def add_commands(commands: Parsers) -> None:
    """Add compare, report and view to the command line."""
    compare = add_command(
        commands,
        "compare",
        _compare,
        "runs side by side, with paired differences to the first",
        "rro compare runs/rro runs/fixed",
    )
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    _add_report(commands)
    view = add_command(
        commands,
        "view",
        _view,
        "the report of a run in progress, served on this machine only",
        "rro view runs/one --port 8080",
    )
    view.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    view.add_argument("--port", type=int, default=0, help="default: any free port")


def _add_report(commands: Parsers) -> None:
    report = add_command(
        commands,
        "report",
        _report,
        "write the report page: overview, trees, pairs; opens from disk",
        "rro report runs/rro runs/fixed --plots figures",
    )
    report.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    report.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="instead of runs: the page of a table, benchmarks.results' results.json",
    )
    report.add_argument(
        "--out", type=Path, metavar="FILE|FOLDER", help="output (default: RUN/report.html)"
    )
    report.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="also write plots and tables there, for papers"
    )


def _begin(runs: Sequence[Path]) -> None:
    """Raises UsageError for a run named twice: it would be compared with itself."""
    places = [run.resolve() for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"{runs[number]} is named twice: name each run once")
    begin("reading", *runs)


def _compare(options: argparse.Namespace) -> None:
    _begin(options.runs)

    from rro.evaluation.compare import compare
    from rro.evaluation.results import load_results
    from rro.report.tables import print_comparison

    runs = [load_results(run) for run in options.runs]
    print_comparison(runs, compare(runs))


def _report(options: argparse.Namespace) -> None:
    if options.results:
        return _report_results(options)
    if not options.runs:
        raise UsageError("name a run folder, or a table of results with --results FILE")
    _begin(options.runs)

    from rro.report.gather import Gatherer
    from rro.report.page import write_report
    from rro.report.plots import require_matplotlib, write_plots
    from rro.report.tables import write_tables

    if options.plots:
        require_matplotlib()
    with Gatherer(options.runs) as gatherer:
        head, chunks = gatherer.whole()
    print(write_report(head, chunks, options.out or options.runs[0] / "report.html"))
    if options.plots:
        write_plots(head, options.plots)
        write_tables(head, options.plots)
        print(options.plots)


def _report_results(options: argparse.Namespace) -> None:
    """Raises UsageError where runs or plots are asked for, too."""
    if options.runs or options.plots:
        raise UsageError("--results makes a page of its own: leave out the runs and --plots")
    begin("reading", options.results)

    from rro.report.page import write_report
    from rro.report.results_page import results_head

    head = results_head(options.results)
    print(write_report(head, [], options.out or options.results.with_suffix(".html")))


def _view(options: argparse.Namespace) -> None:
    _begin(options.runs)

    from rro.report.viewer import serve

    serve(
        options.runs, options.port, lambda address: print(f"{address} (Ctrl-C ends it)", flush=True)
    )
