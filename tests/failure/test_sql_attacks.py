"""The corpus of attacks, on the embedded engine and on a MariaDB: each is answered, within the
limits, and alike when it is repeated and beside other work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sql_attacks import ATTACKS

from rro.intercode_sql.embedded.process import MAX_SECONDS
from rro.intercode_sql.engine import INTERRUPTED
from rro.intercode_sql.server_dump import load_dump

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
HERE = Path(__file__).parent
WRITTEN = Path("/tmp/rro-attack")
# Seconds that a server may take for a statement; its own limit is 5.
SECONDS = 1.5


def attacked(engine, data, cache, busy, *kinds):
    """The answers, as (what, seconds, seconds without the interpreter, text, its length), and what
    holds for all."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, HERE / "sql_attacked.py", engine, data, cache, busy, SECONDS, *kinds]
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=1400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *answers, whole = map(json.loads, done.stdout.splitlines())
    assert len(answers) == sum(what.startswith(kinds or ("",)) for what, _ in ATTACKS)
    assert whole["count"] == "[(4079,)]"
    assert not WRITTEN.exists()
    return answers, whole


def within_limits(answers, limit):
    """Twice the limit of wall time, more on a machine that is busy with other things."""
    busy = max(1.0, (os.getloadavg()[0] - 3) / (os.cpu_count() or 1))
    assert [answer[:2] for answer in answers if answer[1] > 2 * limit * busy] == []
    assert [(what, gap) for what, _, gap, *_ in answers if gap > 0.2] == []


def texts(answers):
    return {what: (text, size) for what, _, _, text, size in answers}


@pytest.mark.alone
def test_the_embedded_engine(shared, tmp_path):
    data = shared / "data" / "intercode-sql"
    beside, whole = attacked("sqlite", data, tmp_path, 2)
    within_limits(beside, MAX_SECONDS)
    assert whole["grown"] < 256_000_000
    alone, _ = attacked("sqlite", data, tmp_path, 0)
    assert texts(beside) == texts(alone)


def test_a_server(admin, shared, tmp_path):
    """Here the clock ends statements: only those that take no time must be answered alike."""
    data = shared / "data" / "intercode-sql"
    load_dump(admin, data / "ic_spider_dbs.sql")
    first, whole = attacked(admin.replace("root@", "root:@"), data, tmp_path, 2)
    # Within a function the server does not look at the clock: then we close the connection after
    # 1.5 * SECONDS, and the server may be busy with what it still computes.
    within_limits(first, SECONDS + 1.5)
    assert whole["grown"] < 256_000_000
    kinds = ("replay", "session", "files")
    second, _ = attacked(admin.replace("root@", "root:@"), data, tmp_path, 0, *kinds)
    one, other = texts(first), texts(second)
    assert [what for what in other if one[what] != other[what]] == []
    refused = ("session", "files")
    assert [what for what in one if what.startswith(refused) and "Error" not in one[what][0]] == []
    # A hint does not lift the limit of time.
    assert INTERRUPTED in one["session: hints"][0]
