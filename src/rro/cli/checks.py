"""`rro check`: whether a recipe can start, and what it takes at most."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rro.cli.commands import Parsers, add_command, add_overrides, begin, folder_named
from rro.cli.runs import RECIPE, default_folder
from rro.errors import RroError, UsageError, counted, describe, place_of, printable

if TYPE_CHECKING:
    from rro.config import Config
    from rro.environments.base import Benchmark
    from rro.models.sizes import ModelSize
    from rro.pipeline.estimate import Part


def add_commands(commands: Parsers) -> None:
    """Add check to the command line."""
    check = add_command(
        commands,
        "check",
        _check,
        "check a recipe without starting a run, and say what it takes at most; writes nothing",
        "rro check quickstart explore.tasks=20 --sampling-rate 1500",
    )
    check.add_argument("recipe", help=RECIPE)
    add_overrides(check)
    check.add_argument(
        "--out",
        type=folder_named,
        metavar="FOLDER",
        help="run folder of a new run (default: runs/NAME-TIME)",
    )
    for name, metavar, text in (
        ("--sampling-rate", "TOKENS", "sampled tokens a second, as you measured them"),
        ("--training-rate", "TOKENS", "tokens trained on a second, as you measured them"),
        ("--price", "MONEY", "of an hour, in any currency"),
    ):
        check.add_argument(name, type=_above_zero, metavar=metavar, help=text)


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _check(options: argparse.Namespace) -> int:
    begin("checking", options.recipe)

    from rro.config import load_config
    from rro.config.packaged import find_recipe
    from rro.pipeline.check import Opened, check_run
    from rro.pipeline.estimate import stated

    config = load_config(find_recipe(options.recipe), options.overrides)
    environment, problems = Opened(config), set[str]()
    folder = options.out or default_folder(config.name)
    for check in check_run(config, folder, environment=environment):
        mark = "wrong" if check.problem else "ok"
        print(printable(f"{mark:5} {check.name}: {check.problem or check.detail}"), flush=True)
        problems |= {check.name} if check.problem else set()
    benchmark = stated(config) if "environment" in problems else environment.benchmark
    if "learner" not in problems:
        for line in _estimate(config, benchmark, options):
            print(printable(f"takes {line}"), flush=True)
    return UsageError.exit_code if problems else 0


def _estimate(
    config: Config, benchmark: Benchmark | None, options: argparse.Namespace
) -> Iterator[str]:
    from rro.concurrency import contained
    from rro.models.sizes import model_size
    from rro.pipeline.estimate import parts

    found: list[Part] = []
    try:
        if benchmark is None:
            wanted = "explore.tasks, evaluate.tasks and environment.max_steps"
            raise UsageError(f"that takes the environment, or a recipe that sets {wanted}")
        with contained():
            found = parts(config, benchmark)
    except RroError as error:
        yield f"calls and tokens: not counted: {error}"
    except Exception as error:  # of a strategy or credit of the user's own
        yield f"calls and tokens: not counted: {describe(error)}{place_of(error)}"
    for part in found:
        counts = f"up to {part.trained:,} tokens trained on"
        if part.calls:
            counts = f"up to {counted(part.calls, 'policy calls')}, {part.sampled:,} sampled tokens"
        yield f"{part.name}: {counts} ({part.how})"
    if (size := model_size(config.model)) is None:
        yield "memory: not known, as neither a file nor the model's name says its size"
    else:
        yield from _memory(config, size, found)
    yield from _time(found, options)


def _memory(config: Config, size: ModelSize, found: Sequence[Part]) -> Iterator[str]:
    from rro.pipeline.memory import described, sampling_memory, training_memory

    count = size.parameters
    count_text = f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
    of = f"{count_text} parameters" + ("" if size.counted else ", as its name says")
    weights, cache = sampling_memory(config, size)
    more = "" if cache is None else f", {described(cache)} for keys and values"
    yield f"memory to sample: about {described(weights)} for weights ({of}){more}"
    for part in found:
        if part.options is not None:
            memory = training_memory(config, part.options, size, part.sides, part.messages)
            kept = memory.activations
            more = "" if kept is None else f", {described(kept)} for activations"
            states = f"{described(memory.states)} for weights, gradients and the optimiser"
            yield f"memory of {part.name}: about {states}{more}"
    if size.shape is None:
        fetch = f"hf download {config.model.name} config.json"
        yield f"memory for keys, values, activations: not known without config.json ({fetch})"


def _time(found: Sequence[Part], options: argparse.Namespace) -> Iterator[str]:
    hours, missing = 0.0, list[str]()
    for rate, total, name in (
        (options.sampling_rate, sum(part.sampled for part in found), "--sampling-rate"),
        (options.training_rate, sum(part.trained for part in found), "--training-rate"),
    ):
        if rate is None:
            missing.append(name)
        else:
            hours += total / rate / 3600
    if len(missing) == 2 or not found:
        return
    price = f" for a price of {options.price * hours:,.2f}" if options.price else ""
    rest = f" (without what {missing[0]} would add)" if missing else ""
    yield f"time: up to {hours:,.1f} hours{price}{rest}"
