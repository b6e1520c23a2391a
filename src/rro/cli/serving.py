"""The commands that put what a run trained to other uses: serve-policy and train-prm."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rro.cli.commands import Parsers, add_command, begin, round_number, time_limit
from rro.errors import UsageError, counted, printable


def add_commands(commands: Parsers) -> None:
    """Add serve-policy and train-prm to the command line."""
    _add_train(commands)
    serve = add_command(
        commands,
        "serve-policy",
        _serve,
        "answer agents from a run's policy, as an OpenAI-compatible endpoint, and record it",
        "rro serve-policy runs/one --record calls.jsonl",
    )
    serve.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    serve.add_argument("--policy", metavar="LABEL", help="sft, rro-1, ... (default: the last)")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    serve.add_argument("--port", type=int, default=8001, help="default: 8001; 0: any free one")
    serve.add_argument(
        "--record", type=Path, metavar="FILE", help="append each call there, as a line of JSON"
    )
    serve.add_argument(
        "--obey",
        action="store_true",
        help="draw at the temperature and top_p that a client asks for, not at the run's",
    )
    serve.add_argument("--in-flight", type=int, default=256, help="calls at once (default: 256)")
    serve.add_argument(
        "--seconds", type=time_limit, default=300.0, help="the longest call (default: 300)"
    )
    serve.add_argument(
        "--trust-run-folder",
        action="store_true",
        help="run the code that a run folder of somebody else names",
    )


def _add_train(commands: Parsers) -> None:
    train = add_command(
        commands,
        "train-prm",
        _train,
        "train a process reward model on what a run explored, and say what it is worth",
        "rro train-prm runs/one",
    )
    train.add_argument("run", metavar="RUN", type=Path, help="a run folder that has explored")
    train.add_argument("--iteration", type=round_number, default=1, help="which round (default: 1)")
    train.add_argument(
        "--labels",
        choices=("mc", "td"),
        default="mc",
        help="the trees' process rewards, or lambda-returns of single rollouts (default: mc)",
    )
    train.add_argument(
        "--trust",
        type=float,
        default=0.9,
        metavar="LAMBDA",
        help="of td: how far outcomes are trusted against the model's own values (default: 0.9)",
    )
    train.add_argument(
        "--weights",
        choices=("head", "all"),
        default="head",
        help="train a head on the policy's weights, or all weights, with mc (default: head)",
    )
    train.add_argument("--epochs", type=float, default=2.0, help="of all weights (default: 2)")
    train.add_argument(
        "--learning-rate", type=float, default=1e-4, help="of all weights (default: 1e-4)"
    )
    train.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: RUN/checkpoints/prm-ITERATION"
    )
    train.add_argument(
        "--trust-run-folder",
        action="store_true",
        help="run the code that a run folder of somebody else names",
    )


def _train(options: argparse.Namespace) -> None:
    if not 0 <= options.trust <= 1:
        raise UsageError("--trust is from 0 to 1")
    if options.weights == "all" and options.labels == "td":
        raise UsageError("--weights all takes --labels mc: lambda-returns train a head alone")
    if not (0 < options.epochs < math.inf and 0 < options.learning_rate < math.inf):
        raise UsageError("--epochs and --learning-rate are above 0")
    begin("opening", options.run)

    from rro.learning.reward_model_trainer import FineTuning
    from rro.pipeline.reward_model import train_reward_model
    from rro.pipeline.run import open_run
    from rro.runs.folder import RunFolder

    folder = RunFolder.open(options.run, trust=options.trust_run_folder)
    whole = options.weights == "all"
    tuning = FineTuning(options.epochs, options.learning_rate) if whole else None
    with open_run(folder) as run:
        found = train_reward_model(
            run, options.iteration, options.labels, options.trust, options.out, tuning
        )
    print("\n".join(worth_lines(found)))
    print(printable(found["checkpoint"]))


def worth_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What the worth of a process reward model is printed as, see `learning.reward_model.Worth`."""
    if found["error"] < found["spread"]:
        yield "predicted  seen   actions"
        for predicted, seen, count in found["bins"]:
            yield f"{predicted:9.3f}  {seen:.3f}  {count:7}"
    else:
        yield "the model is no better than one constant: it does not tell actions apart"
    held_out = f"{counted(found['tasks'], 'tasks')}, {counted(found['actions'], 'actions')}"
    yield (
        f"mean squared error {found['error']:.4f} on tasks that it did not learn from "
        f"({held_out}; one constant: {found['spread']:.4f}), as of {found['outcomes']:.1f} outcomes"
    )


def _serve(options: argparse.Namespace) -> None:
    if options.in_flight < 1 or not 0 <= options.port < 1 << 16:
        raise UsageError("--in-flight is at least 1, --port from 0 to 65535")
    if options.record is not None and options.record.is_dir():
        raise UsageError(f"--record {options.record} is a folder: name a file")
    begin("opening", options.run)

    import asyncio

    from rro.pipeline.rounds import last_label
    from rro.pipeline.run import open_run
    from rro.pipeline.weights import open_policy
    from rro.runs.folder import RunFolder
    from rro.serving.server import PolicyServer, ServerLimits, append_to, count_calls

    folder = RunFolder.open(options.run, trust=options.trust_run_folder)
    drawn = count_calls(options.record)
    with open_run(folder) as run, append_to(options.record) as write:
        policy = open_policy(run, options.policy or last_label(run))
        limits = ServerLimits(in_flight=options.in_flight, seconds=options.seconds)
        try:
            server = PolicyServer(
                policy,
                run.params,
                host=options.host,
                port=options.port,
                seed=run.config.seed,
                drawn=drawn,
                obey=options.obey,
                limits=limits,
                write=write,
            )
            print(f"serving {policy.name} at {server.url()}", flush=True)
            server.serve()
        finally:
            asyncio.run(policy.close())
