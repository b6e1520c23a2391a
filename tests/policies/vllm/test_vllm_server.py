"""The process of vLLM's server, which policies share one, and messages for users. The server is a
fake; vLLM itself is tested in tests/end_to_end/test_vllm_real.py."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import policy_context

from rro.config import parse_config
from rro.errors import RroError, UsageError
from rro.pipeline import weights
from rro.policies.scripted import ScriptedPolicy
from rro.policies.vllm import server_pool
from rro.policies.vllm.guard.rro_guard import RequireKey
from rro.policies.vllm.options import ServedWeights
from rro.policies.vllm.policy import open_vllm
from rro.policies.vllm.server import VllmServer
from rro.policies.vllm.server_pool import acquire, release
from rro.policies.vllm.settings import VllmConfig
from rro.runs.folder import RunFolder

FAKE = Path(__file__).parents[2] / "fake_vllm.py"


@pytest.fixture
def python(tmp_path):
    """An "interpreter" that runs the fake server."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def server(python, tmp_path):
    server = VllmServer(
        VllmConfig(python=python),
        {"model": "m", "max_model_len": 9},
        {},
        tmp_path / "logs" / "v.log",
    )
    yield server
    server.stop()


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


class Counted:
    def __init__(self):
        self.loaded, self.stopped = [], 0

    def load(self, adapter):
        if adapter.name == "bad":
            raise RroError("bad adapter")
        self.loaded.append(adapter)

    def stop(self):
        self.stopped += 1


def test_an_adapter_and_its_base_share_a_server_which_ends_with_the_last_user():
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
def test_other_weights_or_a_larger_rank_get_a_server_of_their_own(second):
    engines = [acquire("k", ServedWeights("w", Path("b"), 8), Counted), acquire(*second, Counted)]
    assert engines[0] is not engines[1]
    for engine in engines:
        release(engine)


def test_a_new_server_that_cannot_load_the_adapter_is_stopped():
    made = []
    with pytest.raises(RroError, match="bad adapter"):
        acquire("k", ServedWeights("w", Path("bad"), 8), lambda: made.append(Counted()) or made[0])
    assert made[0].stopped == 1
    assert not server_pool.running()


# -- the process


def test_a_server_starts_loads_adapters_and_ends_with_its_children(server, tmp_path):
    (tmp_path / "a").mkdir()
    for _ in range(2):
        server.load(tmp_path / "a")
    log = server.log.read_text()
    assert "--model m --max-model-len 9" in log
    assert log.count("loaded") == 1
    assert os.environ["RRO_VLLM_KEY"] not in log
    child = child_in(server.log)
    assert alive(child)
    server.check()
    server.stop()
    wait_until(lambda: not alive(child))
    with pytest.raises(RroError, match="ended by itself"):
        server.check()


@pytest.fixture
def staying(python, tmp_path):
    server = VllmServer(
        VllmConfig(python=python), {"model": "m"}, {}, tmp_path / "v.log", stays=True
    )
    yield server
    server.stop()


def test_a_server_that_stays_takes_over_weights_and_forgets_what_it_cached(staying, tmp_path):
    (tmp_path / "rro-1").mkdir()
    staying.reload(str(tmp_path / "rro-1"))
    log = staying.log.read_text()
    assert log.index(f"reload_weights {tmp_path / 'rro-1'}") < log.index("forgot")
    with pytest.raises(RroError, match=r"cannot take over the weights .*: no weights there"):
        staying.reload(str(tmp_path / "nowhere"))


def test_a_server_that_does_not_stay_has_no_such_endpoint(server, tmp_path):
    with pytest.raises(RroError, match="not found"):
        server.reload(str(tmp_path))


def test_what_is_cached_for_old_weights_must_be_forgotten(monkeypatch, python, tmp_path):
    monkeypatch.setenv("FAKE_VLLM", "busy")
    server = VllmServer(VllmConfig(python=python), {}, {}, tmp_path / "v.log", stays=True)
    try:
        with pytest.raises(RroError, match="its prefix cache is in use"):
            server.reload(str(tmp_path))
    finally:
        server.stop()


def test_a_server_that_others_use_keeps_its_weights():
    first, second = (acquire("k", ServedWeights("w"), Counted) for _ in "12")
    with pytest.raises(UsageError, match="another policy uses the same server"):
        server_pool.rename(first, "new")
    release(second)
    server_pool.rename(first, "new")
    assert acquire("new", ServedWeights("v"), Counted) is first
    release(first)
    release(first)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/health", [], 200),
        ("/collective_rpc", [], 401),
        ("/collective_rpc", [(b"authorization", b"Bearer other")], 401),
        ("/collective_rpc", [(b"authorization", b"Bearer key")], 200),
    ],
)
def test_the_guard_lets_nobody_in_without_the_key(monkeypatch, path, headers, status):
    monkeypatch.setenv("VLLM_API_KEY", "key")
    sent = []

    async def inside(scope, receive, send):
        await send({"status": 200})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(RequireKey(inside)(scope, None, send))
    assert sent[0]["status"] == status


def test_an_adapter_that_the_server_refuses_says_why(server, tmp_path):
    with pytest.raises(RroError, match=r"cannot load the adapter .*no adapter there"):
        server.load(tmp_path / "nowhere")


def test_a_server_that_dies_says_why(python, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies")
    with pytest.raises(
        RroError, match=r"did not start: ValueError: no such dtype \(the whole log is .*v.log"
    ):
        VllmServer(VllmConfig(python=python), {}, {}, tmp_path / "v.log")


def test_a_server_that_ends_at_the_first_request_says_why(python, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "crashes")
    with pytest.raises(RroError, match=r"ended by itself: RuntimeError: no such head size"):
        opened(recipe(tiny, python=str(python)), None, "t/sft", tmp_path)
    assert not server_pool.running()


def test_a_server_that_never_answers_is_ended(python, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "hangs")
    with pytest.raises(RroError, match=r"not ready after 2 s.*policy\.vllm\.start_timeout"):
        VllmServer(VllmConfig(python=python, start_timeout=2), {}, {}, tmp_path / "v.log")
    wait_until(lambda: not alive(child_in(tmp_path / "v.log")))


def test_no_process_is_left_when_rro_is_killed(python, tmp_path):
    log = tmp_path / "v.log"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from rro.policies.vllm.settings import VllmConfig\n"
        "from rro.policies.vllm.server import VllmServer\n"
        "server = VllmServer(VllmConfig(python=sys.argv[1]), {}, {}, Path(sys.argv[2]))\n"
        "print('up', flush=True)\n"
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


# -- messages for users


def opened(config, checkpoint, name, logs):
    """As a run opens it."""
    options = VllmConfig(**config.policy.model_extra["vllm"])
    return open_vllm(options, policy_context(config, checkpoint, name, logs))


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
        opened(recipe(tiny), None, "t/sft", tmp_path)


def test_with_vllm_here_the_server_runs_in_this_interpreter(tiny, tmp_path, monkeypatch):
    """A package called vllm, whose server is the fake."""
    package = tmp_path / "here" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(FAKE.read_text())
    monkeypatch.syspath_prepend(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "here"))
    monkeypatch.setenv("FAKE_VLLM", "crashes")
    with pytest.raises(RroError, match=r"ended by itself: RuntimeError: no such head size"):
        opened(recipe(tiny), None, "t/sft", tmp_path)
    assert not server_pool.running()


def test_a_missing_interpreter_is_named(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"policy\.vllm\.python .*nowhere is no interpreter"):
        opened(recipe(tiny, python=str(tmp_path / "nowhere")), None, "t/sft", tmp_path)


def test_an_interpreter_without_vllm_says_so(tiny, tmp_path):
    if (
        subprocess.run(
            [sys.executable, "-c", "import vllm"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        pytest.skip("this environment has vLLM")
    with pytest.raises(RroError, match="No module named 'vllm'"):
        opened(recipe(tiny, python=sys.executable), None, "t/sft", tmp_path)


@pytest.mark.parametrize(("lora", "start"), [(None, None), ({"rank": 4}, "checkpoints/sft")])
def test_a_run_serves_its_own_checkpoints(tmp_path, monkeypatch, lora, start):
    config = parse_config(
        {"name": "t", "model": {"lora": lora}, "policy": {"backend": "vllm"}}, "test"
    )
    folder = RunFolder(tmp_path, config)
    run = SimpleNamespace(config=config, folder=folder, is_done=lambda stage: stage == "sft")

    class Opened(ScriptedPolicy):
        """A policy that knows how it was opened."""

        def __init__(self, *given):
            super().__init__(lambda messages, rng: "")
            self.given = given

    monkeypatch.setattr("rro.policies.vllm.policy.open_vllm", Opened)
    options, context = weights.open_policy(run, "rro-1").given
    assert options == VllmConfig()
    assert context.find_weights() == tmp_path / "checkpoints" / "rro-1"
    assert (context.name, context.logs) == ("t/rro-1", tmp_path / "logs")
    assert context.start == (tmp_path / start if start else None)
