"""What a GPU does with rro, and whether it gives the CPU's results: `python -m benchmarks.gpu OUT
[--device cuda] [--minutes 9] [--leave-out PART ...] [--reduced]`.

One command for a machine that is lent for minutes and has no network: `make gpu-kit` puts the
packages that it lacks into a folder. Everything starts from the quickstart's shop and models from
scratch, so no weights are needed.

Parts, in this order: the machine; the whole quickstart on the device; log-probabilities of its SFT
policy, one DPO step and one policy-gradient step, on the device in float32 and bfloat16 against the
CPU in float32; generated tokens a second by batch size, and trained tokens a second by micro-batch,
of a model of SmolLM2-135M's shape without its vocabulary; methods on the long shop. OUT/gpu.json is
written after each part, so what is done is kept when the time ends; no part begins after
`--minutes`. `--device cpu --reduced` tries it all where there is no GPU: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.local_engine import HISTORIES, long_histories
from benchmarks.throughput import Setup
from rro.config import ModelConfig
from rro.learning.base import TrainingContext
from rro.learning.dpo import Dpo
from rro.learning.pairs import read_pairs
from rro.learning.policy_gradient import PolicyGradient, PolicyGradientConfig
from rro.models.chat import ChatFormat
from rro.models.loading import load_model
from rro.runs.folder import RunFolder, stage_records
from rro.runs.journal import Journal
from rro.types import Message, WeightedEpisode

ROOT = Path(__file__).parent.parent
QUICKSTART = ("quickstart", "policy.replicas=1")
# The quickstart in about a minute: every stage, but too little of each to learn much.
REDUCED = (
    *("environment.options.sample.products=12", "experts.episodes=150", "sft.epochs=3"),
    *("method=rro", "explore.tasks=12", "explore.rollouts=2", "explore.candidates=3"),
    *("dpo.epochs=1", "evaluate.tasks=8"),
)
# SmolLM2-135M without its vocabulary of 49,152: 106 million parameters.
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "layers": 30, "heads": 9, "kv_heads": 3}
SMALL_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "kv_heads": 2}
METHODS = "successes,gigpo-4"


@dataclass(frozen=True)
class Kit:
    """Where the parts run and write, and how much they do."""

    out: Path
    device: str
    reduced: bool

    @property
    def shop(self) -> Path:
        """The quickstart's run folder."""
        return self.out / "runs" / "quickstart"

    @property
    def big(self) -> Path:
        """The run folder of the larger model."""
        return self.out / "runs" / "shape"

    def rro(self, *words: object) -> float:
        """Run a command of rro; the seconds that it took."""
        return _run(sys.executable, "-m", "rro", *words)

    def setups(self) -> dict[str, ModelConfig]:
        """What is compared: the CPU in float32 first, then the device."""
        compared = [("cpu", "float32"), (self.device, "float32"), (self.device, "bfloat16")]
        return {
            f"{device} {dtype}": ModelConfig(
                name=str(self.shop / "checkpoints" / "sft"), device=device, dtype=dtype
            )
            for device, dtype in compared
        }


def machine(kit: Kit) -> dict[str, Any]:
    """What it is."""
    import torch
    import transformers

    found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        found |= {"device": torch.cuda.get_device_name(), "memory_gb": round(memory / 1e9, 1)}
    return found | {"cores": os.cpu_count()}


def quickstart(kit: Kit) -> dict[str, Any]:
    """The whole path: seconds of each stage, and rewards."""
    words = [*QUICKSTART, f"model.device={kit.device}", *REDUCED * kit.reduced]
    seconds = kit.rro("run", *words, "--out", kit.shop)
    results = json.loads((kit.shop / "results.json").read_text())
    rewards = {
        f"{row['label']} {row['mode']}": row["reward"]["mean"] for row in results["evaluations"]
    }
    return {"seconds": round(seconds), "stages": _stages(kit.shop), "rewards": rewards}


def logprobs(kit: Kit) -> dict[str, Any]:
    """The largest difference of a token's log-probability from the CPU's, over the chosen sides of
    a run's pairs."""
    import torch

    found: dict[str, list[Any]] = {}
    for name, config in kit.setups().items():
        model, tokenizer = load_model(config, None, train=False)
        chat, found[name] = ChatFormat(tokenizer), []
        for messages in _conversations(kit)[:32]:
            ids = torch.tensor([chat.encode(messages, False).ids], device=model.device)
            with torch.inference_mode():
                every = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
            found[name].append(every.gather(-1, ids[0, 1:, None])[:, 0].cpu())
        _free(model)
    first, *others = found
    return {
        name: max(
            float((a - b).abs().max()) for a, b in zip(found[first], found[name], strict=True)
        )
        for name in others
    }


def steps(kit: Kit) -> dict[str, Any]:
    """Loss and gradient norm of one step of DPO and of the policy gradient, on the same rows."""
    folder, results = RunFolder.open(kit.shop), dict[str, Any]()
    pairs = list(read_pairs(folder.pairs(1)))[:8]
    episodes = [
        WeightedEpisode(str(number), messages, _last(messages, (-1.0) ** number), 1.0, True)
        for number, messages in enumerate(_conversations(kit)[:8])
    ]
    start = kit.shop / "checkpoints" / "sft"
    for name, config in kit.setups().items():
        precision = {"precision": config.dtype}
        context = TrainingContext(config, folder.config.seed)
        output = kit.out / "steps" / name.replace(" ", "-")
        dpo = folder.config.dpo.model_copy(
            update={"epochs": 1, "batch_size": 8, "micro_batch": 8, "warmup": 0.0, **precision}
        )
        gradient = PolicyGradientConfig.model_validate({"epochs": 1, "batch_size": 8, **precision})
        trained = {
            "dpo": Dpo(dpo).train(pairs, start, start, output / "dpo", context),
            "policy_gradient": PolicyGradient(gradient).train(
                episodes, start, None, output / "policy_gradient", context
            ),
        }
        results[name] = {
            learner: {"loss": report.first_loss, "grad_norm": report.metrics.get("grad_norm")}
            for learner, report in trained.items()
        }
    return results


def sampling(kit: Kit) -> dict[str, Any]:
    """Generated tokens a second by how many rollouts are in flight, from histories of 600 words."""
    rows: dict[str, Any] = {}
    sizes, words = ((4, 8), 40) if kit.reduced else ((8, 32, 128, 512), 600)
    config = ModelConfig(name=str(kit.big / "checkpoints" / "sft"), device=kit.device)
    model, tokenizer = load_model(config, None, train=False)
    for batch in sizes:
        done = long_histories(model, tokenizer, batch // HISTORIES, words, Setup(batch, batch))
        tokens, seconds = done["generated_tokens"], done["seconds"]
        rows[str(batch)] = {
            "tokens": tokens,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds),
            "cpu_seconds": round(done["cpu_seconds"], 2),
        }
    _free(model)
    return rows


def training(kit: Kit) -> dict[str, Any]:
    """Trained tokens a second of SFT, by micro-batch and precision."""
    shape = SMALL_SHAPE if kit.reduced else SHAPE
    words = [*QUICKSTART, f"model.device={kit.device}", *REDUCED * kit.reduced]
    words += [f"model.tiny.{name}={value}" for name, value in shape.items()]
    words += ["sft.epochs=1", "sft.learning_rate=1e-3"]
    precisions = ("float32",) if kit.reduced else ("float32", "bfloat16")
    rows: dict[str, Any] = {}
    for precision in precisions:
        for micro in (8, 32):
            run = kit.out / "runs" / f"shape-{precision}-{micro}"
            sizes = [f"sft.batch_size={micro}", f"sft.micro_batch={micro}"]
            kit.rro("sft", *words, *sizes, f"sft.precision={precision}", "--out", run)
            rows[f"{precision}, {micro} rows"] = _stages(run)["sft"]
    if not kit.big.exists():
        (kit.out / "runs" / "shape-float32-8").rename(kit.big)
    return rows


def methods(kit: Kit) -> dict[str, Any]:
    """Methods at equal tokens on the long shop, as many seeds as the time allows."""
    if kit.reduced:
        return {"left out": "the reduced form trains nothing"}
    command = ("benchmarks.learning", kit.out / "learning", "--place", "long-shop", "--seeds")
    seconds = _run(
        *(sys.executable, "-m", *command, "300-302", "--tokens", 15000, "--methods", METHODS),
        *("--workers", 3),
    )
    return {"seconds": round(seconds)}


PARTS: Sequence[Callable[[Kit], Mapping[str, Any]]] = (
    *(machine, quickstart, logprobs, steps, training, sampling, methods),
)


def run_parts(kit: Kit, minutes: float, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Run the parts that begin within the time; the results, also written after each. A part that
    fails says so, and the others go on."""
    begun, results = time.monotonic(), dict[str, Any]()
    kit.out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if part.__name__ in leave_out:
            continue
        if time.monotonic() - begun > 60 * minutes:
            results[part.__name__] = {"left out": "no time was left"}
            continue
        start = time.monotonic()
        try:
            found = dict(part(kit))
        # Whatever fails on a machine that nobody could try must not cost the other parts.
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        results[part.__name__] = {**found, "part_seconds": round(time.monotonic() - start, 1)}
        (kit.out / "gpu.json").write_text(json.dumps(results, indent=2))
        print(part.__name__, json.dumps(results[part.__name__]), flush=True)
    return results


def _run(*command: object) -> float:
    start = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT)
    return time.monotonic() - start


def _stages(run: Path) -> dict[str, Any]:
    """Seconds of each stage of a run and, where it trained, tokens a second."""
    with Journal(RunFolder.open(run).journal, read_only=True) as journal:
        stages = stage_records(journal)
    return {
        name: {
            "seconds": record.get("seconds"),
            "tokens_per_second": record.get("training", {}).get("tokens_per_second"),
        }
        for name, record in stages.items()
    }


def _conversations(kit: Kit) -> list[tuple[Message, ...]]:
    """The chosen sides of the quickstart's pairs, with their histories."""
    pairs = read_pairs(RunFolder.open(kit.shop).pairs(1))
    return [(*pair.prompt, *pair.chosen) for pair in pairs]


def _last(messages: Sequence[Message], advantage: float) -> tuple[float | None, ...]:
    """An advantage for the last message alone."""
    return (*(None for _ in messages[1:]), advantage)


def _free(model: Any) -> None:
    """Give a model's memory back before the next one."""
    import torch

    model.to("cpu")
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the results and runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part begins later")
    parser.add_argument("--reduced", action="store_true", help="little of everything, for a CPU")
    parser.add_argument(
        "--leave-out", nargs="*", default=[], metavar="PART", choices=[p.__name__ for p in PARTS]
    )
    arguments = parser.parse_args()
    kit = Kit(arguments.out, arguments.device, arguments.reduced)
    run_parts(kit, arguments.minutes, arguments.leave_out)


if __name__ == "__main__":
    main()
