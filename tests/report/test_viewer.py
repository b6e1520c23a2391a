"""`rro view` answers GET requests on the loopback address, under its own name, and nothing else."""

import http.client
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest
from report_toys import TREE, make_run

from rro.errors import UsageError
from rro.report.gather import Gatherer
from rro.report.pack import unpack
from rro.report.viewer import make_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    run = make_run(
        tmp_path_factory.mktemp("runs") / "toy", {f"task/{number}": TREE for number in range(4)}
    )
    with Gatherer([run.path]) as gatherer:
        server = make_server(gatherer)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server, path, method="GET", host=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_page_its_head_and_its_trees(server):
    status, page, headers = ask(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.startswith("<!doctype html>")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("connect-src 'self'; frame-ancestors 'none'")
    head = unpack(ask(server, "/head")[1])
    assert head["live"]
    assert len(head["tasks"]) == 4
    tree = unpack(ask(server, f"/chunk/{head['tasks'][2]['chunk']}")[1])["tasks"][0]
    assert len(tree["nodes"]) * 3 == len(head["tasks"][2]["nodes"])
    assert ask(server, f"/head?seen={head['records']}")[0] == 204


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/chunk/", "/chunk/999-1", "/chunk/../../config.toml", "/journal.jsonl", "/head/"],
)
def test_there_is_nothing_else(server, path):
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example", ""],
)
def test_another_name_is_refused(server, host):
    """A page elsewhere whose name was made to point here sends its own name."""
    status, text, _ = ask(server, "/head", host=host)
    assert status == 421
    assert "answers only to 127.0.0.1" in text


def test_its_names_are_answered(server):
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        assert ask(server, "/head", host=f"{name}:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_get_alone(server, method):
    status, _, headers = ask(server, "/", method, body=b"x" if method == "POST" else None)
    assert (status, headers["Allow"]) == (405, "GET")


def test_another_site_can_neither_frame_nor_embed_it(server):
    _, _, headers = ask(server, "/head")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_a_taken_port(server, tmp_path):
    (tmp_path / "config.toml").write_text("")
    with Gatherer([tmp_path]) as gatherer:
        with pytest.raises(UsageError, match=f"port {server.server_port} is unavailable"):
            make_server(gatherer, server.server_port)
        with pytest.raises(UsageError, match="port 99999"):
            make_server(gatherer, 99999)


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    (tmp_path / "config.toml").write_text("")
    command = [
        sys.executable,
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n",
    ]
    command[-1] += (
        f"from rro.cli.main import main; raise SystemExit(main(['view', {str(tmp_path)!r}]))"
    )
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as viewer:
        address = viewer.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}head") as answer:
            assert unpack(answer.read().decode())["tasks"] == []
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(20) == 0
        assert re.fullmatch(r"reading .+ \.\.\.\n", viewer.stderr.read())
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
