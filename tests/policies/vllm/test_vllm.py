"""vLLM's server without vLLM: its arguments, which policies share one, and the process that is
started and ended.

vLLM itself is tested in tests/end_to_end/test_vllm_real.py."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from rro.config import ModelConfig, PolicyConfig, TinyConfig, VllmConfig, parse_config
from rro.errors import RroError, UsageError
from rro.models.loading import build_tiny, load_model
from rro.pipeline import weights
from rro.policies.vllm import server_pool
from rro.policies.vllm.options import (
    ServedWeights,
    command_line,
    environment,
    find_weights,
    lora_options,
    server_options,
)
from rro.policies.vllm.policy import open_vllm
from rro.policies.vllm.server import VllmServer
from rro.policies.vllm.server_pool import acquire, release
from rro.runs.folder import RunFolder

FAKE = Path(__file__).parents[2] / "fake_vllm.py"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_tiny(
        TinyConfig(hidden_size=32, intermediate_size=32, layers=2, heads=2, kv_heads=2),
        ["a b"],
        0,
        folder,
    )
    return folder


@pytest.fixture
def python(tmp_path):
    """An "interpreter" that is the fake."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def engine(python, tmp_path):
    engine = VllmServer(
        VllmConfig(python=python),
        {"model": "m", "max_model_len": 9},
        {},
        tmp_path / "logs" / "v.log",
    )
    yield engine
    engine.stop()


def adapter(folder, **settings):
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 12, "base_model_name_or_path": None} | settings
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def child_in(log):
    return int(re.search(r"child: (\d+)", log.read_text())[1])


# -- arguments


def test_arguments_are_what_the_command_line_takes():
    options = {
        "model": "m",
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "rope": {"a": 1},
        "x": [1, 2],
        "y": None,
    }
    words = [
        "--model",
        "m",
        "--enforce-eager",
        "--no-enable-chunked-prefill",
        "--rope",
        '{"a": 1}',
        "--x",
        "1",
        "2",
    ]
    assert command_line(options) == words


def test_on_a_cpu_prompts_come_whole_and_memory_is_bounded(tiny):
    policy = PolicyConfig(prefix_cache_tokens=5000, max_context=600)
    options = server_options(ModelConfig(device="cpu"), policy, str(tiny))
    assert options["enable_chunked_prefill"] is False
    assert options["max_num_batched_tokens"] >= options["max_model_len"] == 600
    assert options["dtype"] == "float32"
    assert (
        options["kv_cache_memory_bytes"] == 5000 * 2 * 2 * 2 * 16 * 4
    )  # layers, keys and values, heads, width, bytes
    huge = server_options(
        ModelConfig(device="cpu"), PolicyConfig(prefix_cache_tokens=10**12), str(tiny)
    )
    assert (
        huge["kv_cache_memory_bytes"] < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 3
    )


def test_the_cache_always_holds_two_whole_contexts(tiny):
    options = server_options(
        ModelConfig(device="cpu"), PolicyConfig(prefix_cache_tokens=0), str(tiny)
    )
    assert options["enable_prefix_caching"] is False
    assert options["kv_cache_memory_bytes"] == 2 * 1024 * 2 * 2 * 2 * 16 * 4


def test_the_recipe_has_the_last_word(tiny):
    vllm = VllmConfig(dtype="bfloat16", options={"enforce_eager": False, "block_size": 64})
    options = server_options(ModelConfig(device="cpu"), PolicyConfig(vllm=vllm), str(tiny))
    assert (options["dtype"], options["enforce_eager"], options["block_size"]) == (
        "bfloat16",
        False,
        64,
    )


def test_what_the_user_set_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in environment(1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment(3)["OMP_NUM_THREADS"] == "3"


# -- weights


def test_a_whole_checkpoint_is_served_as_it_is(tiny):
    assert find_weights(ModelConfig(), tiny) == ServedWeights(str(tiny))
    assert lora_options(0) == {}


def test_an_adapter_is_put_on_its_base(tiny, tmp_path):
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(tiny), rank_pattern={"q_proj": 20})
    assert find_weights(ModelConfig(), folder) == ServedWeights(str(tiny), folder, 20)
    assert lora_options(20) == {"enable_lora": True, "max_lora_rank": 32, "max_loras": 2}


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"peft_type": "IA3"}, {"r": 999}],
)
def test_an_adapter_that_vllm_would_misread_is_refused(tiny, tmp_path, settings):
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(tiny), **settings)
    with pytest.raises(UsageError, match="vLLM cannot load this adapter"):
        find_weights(ModelConfig(), folder)


@pytest.fixture(scope="module")
def iterations(tiny, tmp_path_factory):
    """checkpoints/sft, and two iterations of LoRA from it, as training leaves them."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    shutil.copytree(tiny, folder / "sft")
    torch.manual_seed(0)
    for before, after in (("sft", "rro-1"), ("rro-1", "rro-2")):
        model, tokenizer = load_model(ModelConfig(device="cpu"), folder / before, train=True)
        model = get_peft_model(
            model,
            LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", init_lora_weights=False),
        )
        model.save_pretrained(folder / "adapter")
        model.merge_and_unload().save_pretrained(folder / after)
        tokenizer.save_pretrained(folder / after)
        (folder / "adapter").rename(folder / after / "adapter")
    return folder


@pytest.mark.parametrize(("label", "rank"), [("rro-1", 3), ("rro-2", 6)])
def test_iterations_by_lora_are_one_adapter_on_the_sft_policy(iterations, tmp_path, label, rank):
    moved = tmp_path / "elsewhere"
    shutil.copytree(iterations, moved)
    for _ in range(2):  # the second time the stack is there
        found = find_weights(ModelConfig(device="cpu"), moved / label, moved / "sft")
        assert (found.whole, found.rank) == (str(moved / "sft"), rank)
    ids = torch.tensor([[5, 9, 30, 4, 77]])
    merged, _ = load_model(ModelConfig(device="cpu"), moved / label, train=False)
    base, _ = load_model(ModelConfig(device="cpu"), moved / "sft", train=False)
    with torch.inference_mode():
        alone = base(ids).logits
        adapted = PeftModel.from_pretrained(base, found.adapter)(ids).logits
        assert (adapted - merged(ids).logits).abs().max() < 1e-4
        assert (adapted - alone).abs().max() > 1e-2


def test_without_adapters_in_between_a_checkpoint_is_served_whole(iterations, tiny):
    for checkpoint, start in (
        (iterations / "sft", iterations / "sft"),
        (iterations / "rro-1", tiny),
        (tiny, iterations / "sft"),
    ):
        assert find_weights(ModelConfig(), checkpoint, start) == ServedWeights(str(checkpoint))


# -- sharing


class Counted:
    def __init__(self):
        self.loaded, self.stopped = [], 0

    def load(self, adapter):
        if adapter.name == "bad":
            raise RroError("bad adapter")
        self.loaded.append(adapter)

    def stop(self):
        self.stopped += 1


def test_an_adapter_and_its_base_share_one_engine_which_ends_with_the_last():
    explorer = acquire("k", ServedWeights("w", Path("a"), 8), Counted)
    pricer = acquire("k", ServedWeights("w"), Counted)
    assert pricer is explorer
    assert explorer.loaded == [Path("a")]
    release(explorer)
    assert not explorer.stopped
    release(pricer)
    assert explorer.stopped == 1
    assert not server_pool.running()


@pytest.mark.parametrize(
    "second", [("other", ServedWeights("v")), ("k", ServedWeights("w", Path("a"), 16))]
)
def test_other_weights_or_a_larger_rank_get_an_engine_of_their_own(second):
    engines = [acquire("k", ServedWeights("w", Path("b"), 8), Counted), acquire(*second, Counted)]
    assert engines[0] is not engines[1]
    for engine in engines:
        release(engine)


def test_an_engine_that_cannot_load_the_adapter_does_not_stay():
    made = []
    with pytest.raises(RroError, match="bad adapter"):
        acquire("k", ServedWeights("w", Path("bad"), 8), lambda: made.append(Counted()) or made[0])
    assert made[0].stopped == 1
    assert not server_pool.running()


# -- the process


def test_a_server_starts_takes_adapters_and_ends_with_its_children(engine, tmp_path):
    engine.load(adapter(tmp_path / "a"))
    engine.load(tmp_path / "a")  # once is enough
    log = engine.log.read_text()
    assert "--model m --max-model-len 9" in log
    assert log.count("loaded") == 1
    assert os.environ["RRO_VLLM_KEY"] not in log
    child = child_in(engine.log)
    assert alive(child)
    engine.check()
    engine.stop()
    wait_until(lambda: not alive(child))
    with pytest.raises(RroError, match="ended by itself"):
        engine.check()


def test_an_adapter_that_the_server_refuses_says_why(engine, tmp_path):
    with pytest.raises(RroError, match=r"cannot load the adapter .*no adapter there"):
        engine.load(tmp_path / "nowhere")


def test_a_server_that_dies_says_why(python, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies")
    with pytest.raises(
        RroError, match=r"did not start: ValueError: no such dtype \(the whole log is .*v.log"
    ):
        VllmServer(VllmConfig(python=python), {}, {}, tmp_path / "v.log")


def test_a_server_that_ends_at_the_first_question_says_why(python, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "faints")
    with pytest.raises(RroError, match=r"ended by itself: RuntimeError: no such head size"):
        open_vllm(recipe(tiny, python=str(python)), None, "t/sft", tmp_path)
    assert not server_pool.running()


def test_a_server_that_never_answers_is_ended(python, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "hangs")
    with pytest.raises(RroError, match=r"not ready after 2 s.*policy\.vllm\.start_timeout"):
        VllmServer(VllmConfig(python=python, start_timeout=2), {}, {}, tmp_path / "v.log")
    wait_until(lambda: not alive(child_in(tmp_path / "v.log")))


def test_nothing_is_left_when_rro_is_killed(python, tmp_path):
    log = tmp_path / "v.log"
    code = (
        "import sys, time; from pathlib import Path; from rro.config import VllmConfig\n"
        "from rro.policies.vllm.server import VllmServer\n"
        "engine = VllmServer(VllmConfig(python=sys.argv[1]), {}, {}, Path(sys.argv[2])); print('up', flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(python), str(log)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"up\n"
        child = child_in(log)
        assert alive(child)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(child))


# -- what a user reads


def recipe(tiny, **vllm):
    return parse_config(
        {
            "model": {"name": str(tiny), "device": "cpu"},
            "policy": {"backend": "vllm", "vllm": vllm},
        },
        "test",
    )


def test_without_vllm_here_the_error_says_how_to_get_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("rro.policies.vllm.policy.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"has no vLLM: run make vllm and set policy\.vllm\.python = .*bin/python"
    ):
        open_vllm(recipe(tiny), None, "t/sft", tmp_path)


def test_with_vllm_here_the_server_runs_in_this_interpreter(tiny, tmp_path, monkeypatch):
    """A package that stands where vLLM would: its server is the fake."""
    package = tmp_path / "here" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(FAKE.read_text())
    monkeypatch.syspath_prepend(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "here"))
    monkeypatch.setenv("FAKE_VLLM", "faints")
    with pytest.raises(RroError, match=r"ended by itself: RuntimeError: no such head size"):
        open_vllm(recipe(tiny), None, "t/sft", tmp_path)
    assert not server_pool.running()


def test_an_interpreter_that_is_none_is_named(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"policy\.vllm\.python .*nowhere is no interpreter"):
        open_vllm(recipe(tiny, python=str(tmp_path / "nowhere")), None, "t/sft", tmp_path)


def test_an_interpreter_without_vllm_says_so(tiny, tmp_path):
    if (
        subprocess.run(
            [sys.executable, "-c", "import vllm"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        pytest.skip("this environment has vLLM")
    with pytest.raises(RroError, match="No module named 'vllm'"):
        open_vllm(recipe(tiny, python=sys.executable), None, "t/sft", tmp_path)


@pytest.mark.parametrize(("lora", "start"), [(None, None), ({"rank": 4}, "checkpoints/sft")])
def test_a_run_serves_its_own_checkpoints(tmp_path, monkeypatch, lora, start):
    config = parse_config(
        {"name": "t", "model": {"lora": lora}, "policy": {"backend": "vllm"}}, "test"
    )
    run = SimpleNamespace(config=config, folder=RunFolder(tmp_path, config))
    monkeypatch.setattr(
        "rro.policies.vllm.policy.open_vllm", lambda *given: SimpleNamespace(given=given)
    )
    policy = weights.open_policy(run, "rro-1")
    where = tmp_path / "checkpoints" / "rro-1"
    assert policy.given == (
        config,
        where,
        "t/rro-1",
        tmp_path / "logs",
        tmp_path / start if start else None,
    )
