"""Waits of milliseconds for API clients, and a MariaDB of Debian's packages, on loopback."""

import shutil
import socket
import subprocess
import time

import pytest
from bad_server import KEY

from rro.errors import RroError
from rro.intercode_sql.server import connect, parse_url
from rro.policies.api import backoff


@pytest.fixture
def short_waits(monkeypatch):
    """The first wait before a retry takes 2 ms, and RRO_TEST_KEY holds the key."""
    monkeypatch.setattr(backoff, "FIRST_WAIT", 0.002)
    monkeypatch.setenv("RRO_TEST_KEY", KEY)


@pytest.fixture(scope="module")
def admin(tmp_path_factory):
    """The administrator's URL of a server of its own, which ends with the tests."""
    program, install = (shutil.which(name) for name in ("mariadbd", "mariadb-install-db"))
    if not program or not install:
        pytest.skip("no MariaDB here: apt-get install mariadb-server")
    pytest.importorskip("pymysql")
    folder = tmp_path_factory.mktemp("maria")
    common = ["--no-defaults", f"--datadir={folder / 'data'}", "--user=root"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        **quiet,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder / 's'}",
        f"--pid-file={folder / 'pid'}",
    ]
    # Names of tables are case-sensitive, as usual on Linux.
    small = ["--innodb-buffer-pool-size=32M", "--skip-log-bin"]
    server = subprocess.Popen([program, *common, *options, *small], **quiet)
    url = f"mysql://root@127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                connect(parse_url(url)).close()
                break
            except RroError:
                time.sleep(0.3)
        yield url
    finally:
        server.kill()  # it would wait for the statements that run
        server.wait(30)
