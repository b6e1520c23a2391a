"""An environment, a policy backend, a strategy, a credit and a learner of one's own: each from one
file outside the package, named by a recipe as module:attribute, and run."""

import json
from pathlib import Path
from typing import Any, Literal

import doors
import pytest
from pydantic import BaseModel

from rro.cli.main import main
from rro.errors import UsageError
from rro.plugins import CREDITS, ENVIRONMENTS, LEARNERS, POLICIES, STRATEGIES, Door

RECIPE = """
name = "own"
threads = 1
[environment]
name = "own_environment:open_doors"
[model.tiny]
hidden_size = 48
intermediate_size = 96
layers = 2
heads = 4
kv_heads = 4
vocabulary = 300
context = 128
[policy]
max_new_tokens = 8
[experts]
episodes = 100
noise = 0.5
[sft]
epochs = 6
learning_rate = 6e-3
batch_size = 16
[explore]
tasks = 6
rollouts = 3
candidates = 3
[dpo]
epochs = 1
batch_size = 4
[evaluate]
tasks = 3
greedy = false
bootstrap = 100
"""

POLICY = '''
import random
from rro import ScriptedPolicy

def open_policy(context, doors: list[str] = ["red", "blue"]):
    """Opens a door at random; needs no weights."""
    return ScriptedPolicy(lambda messages, rng: f"open {rng.choice(doors)}", context.name)
'''

STRATEGY = '''
from dataclasses import dataclass
from rro import Strategy

@dataclass(frozen=True)
class BestOf(Strategy):
    """Draws some candidates a step; the best one is chosen."""

    drawn: int = 2
    """Candidates a step."""
    rollouts: int = 1
    """Rollouts per candidate."""

    name = "best-of"

    async def explore(self, sampler):
        node = sampler.tree.root
        while sampler.is_open(node):
            new = await sampler.propose_and_estimate(node, self.drawn, self.rollouts)
            node = max(new, key=lambda candidate: candidate.estimate.mean)
            sampler.commit(node, rose=False)
'''

CREDIT = '''
from dataclasses import dataclass
from rro import Credit
from rro.learning.credit.base import CreditContext
from rro.learning.credit.pairs import step_pair

@dataclass(frozen=True)
class EveryOrder(Credit):
    """A pair of any two siblings whose process rewards differ."""

    at_most: int = 1000
    """Pairs of a tree at most."""
    context: CreditContext = CreditContext()

    def rows(self, tree):
        found = []
        for node in tree.root.walk():
            known = [child for child in node.children if child.estimate is not None]
            found += [
                step_pair(tree, a, b, self.context)
                for a in known for b in known
                if a.estimate.mean > b.estimate.mean and a.action.content != b.action.content
            ]
        return found[: self.at_most]
'''

LEARNER = '''
from pydantic import BaseModel
from rro.config import SftConfig
from rro.learning.sft import Sft

class Options(BaseModel):
    epochs: float = 1.0

class ImitateChosen:
    """Fine-tunes on the chosen side of each pair."""

    name, takes = "imitate", "pairs"

    def __init__(self, options: Options):
        self.sft = Sft(SftConfig(epochs=options.epochs, batch_size=4, micro_batch=4))

    def train(self, rows, start, reference, output, context):
        chosen = [(*pair.prompt, *pair.chosen) for pair in rows]
        return self.sft.train(chosen, start, reference, output, context)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The recipe and one file for each kind, beside it."""
    (tmp_path / "own_environment.py").write_text(Path(doors.__file__).read_text())
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for name, text in {
        "own_policy": POLICY,
        "own_strategy": STRATEGY,
        "own_credit": CREDIT,
        "own_learner": LEARNER,
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path.parent)  # modules are found beside the recipe, not only here
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model after the recipe's SFT."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "own_environment.py").write_text(Path(doors.__file__).read_text())
    (folder / "recipe.toml").write_text(RECIPE)
    assert main(["sft", str(folder / "recipe.toml"), "--out", str(folder / "run")]) == 0
    return ['sft="none"', f"model.name={folder / 'run' / 'checkpoints' / 'sft'}"]


def run(folder, *overrides):
    """Run the recipe; returns its results and its pairs."""
    out = folder / "run"
    assert main(["run", str(folder / "recipe.toml"), *overrides, "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    pairs = [json.loads(line) for line in (out / "pairs-1.jsonl").open()]
    return results, pairs


def test_an_environment(folder):
    results, pairs = run(folder)
    assert results["environment"]["name"] == "own_environment:open_doors"
    assert pairs
    assert {row["label"] for row in results["evaluations"]} == {"sft", "rro-1"}


def test_a_policy(folder, trained):
    options = ["policy.backend=own_policy:open_policy", "policy.options.doors=['red','green']"]
    _, pairs = run(folder, *trained, *options)
    said = {turn["content"] for pair in pairs for turn in (*pair["chosen"], *pair["rejected"])}
    assert said == {"open red", "open green"}


def test_a_strategy(folder, trained):
    options = ["explore.strategy=own_strategy:BestOf", "explore.options.drawn=4"]
    results, pairs = run(folder, *trained, *options)
    assert {pair["strategy"] for pair in pairs} == {"best-of"}
    assert results["stages"]["explore-1"]["candidates_per_step"] == 4


def test_a_credit(folder, trained):
    options = ["credit.name=own_credit:EveryOrder", "credit.options.at_most=1"]
    _, few = run(folder, *trained, *options)
    assert 1 <= len(few) <= 6  # of six trees
    assert len({pair["task"] for pair in few}) == len(few)


def test_a_learner(folder, trained):
    options = ["optimise.learner=own_learner:ImitateChosen", "optimise.options.epochs=2"]
    results, pairs = run(folder, *trained, *options)
    training = results["stages"]["optimise-1"]["training"]
    assert training["stage"] == "sft"
    assert training["rows"]["used"] == len(pairs)


def test_a_learner_that_does_not_take_what_the_credit_gives_is_refused(folder, capsys):
    overrides = ["credit.name=demonstrations", "optimise.learner=dpo"]
    code = main(["run", str(folder / "recipe.toml"), *overrides, "--out", str(folder / "run")])
    assert code == 2
    assert (
        "learner dpo takes pairs, but credit demonstrations gives conversations"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("door", "names"),
    [
        (ENVIRONMENTS, {"webshop", "intercode-sql"}),
        (POLICIES, {"transformers", "vllm", "openai"}),
        (STRATEGIES, {"rro", "adaptive", "fixed", "ipr", "eto", "rft"}),
        (CREDITS, {"pairs", "credible_pairs", "expert_pairs", "outcome_pairs", "demonstrations"}),
        (LEARNERS, {"dpo", "sft"}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_packages_own_come_through_the_same_doors(door, names):
    assert names <= set(door.names())
    for name in names:
        plugin = door.find(name)
        undescribed = [
            option
            for option, field in plugin.options_model.model_fields.items()
            if not field.description
        ]
        assert undescribed == []
    with pytest.raises(UsageError, match=f"unknown {door.kind} 'nothing'"):
        door.find("nothing")


def test_a_name_is_registered_once():
    door = Door("strategy", STRATEGIES.group)
    door.register("mine", object)
    assert door.find("mine").factory is object
    for taken in ("mine", "rro"):
        with pytest.raises(UsageError, match="is registered already"):
            door.register(taken, object)


class Inner(BaseModel):
    depth: int | None = 3


class Nones(BaseModel, extra="allow"):
    limit: int | None = 5
    word: Literal["a", "none"] = "a"
    either: Literal["a", None] = "a"
    text: str = ""
    anything: Any = 1
    inner: Inner = Inner()
    table: dict[str, int | None] = {}


def with_nones(options: Nones):
    return options


def test_none_is_none_where_an_options_type_has_it():
    none: dict[str, Any] = dict.fromkeys(("limit", "word", "either", "text", "anything"), "none")
    none |= {"inner": {"depth": "none"}, "table": {"a": "none"}, "other": {"b": "none"}}
    door = Door("option", STRATEGIES.group)
    door.register("nones", with_nones)
    assert door.find("nones").options(none).model_dump() == {
        "limit": None,
        "word": "none",
        "either": None,
        "text": "none",
        "anything": None,
        "inner": {"depth": None},
        "table": {"a": None},
        "other": {"b": None},
    }
