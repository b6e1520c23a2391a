"""How a run stands, told while it works and afterwards; and its log, which stays small."""

import json
import logging

import pytest

from rro.cli.main import main
from rro.config import Config
from rro.runs import log_file
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.runs.status import published, read_status
from rro.types import Usage

SPENT = Usage(policy_calls=30, generated_tokens=600, cost=1.5)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(Config(), tmp_path / "run")


def test_a_run_that_works_tells_stage_rate_cost_and_failures(folder, capsys):
    done = {"seconds": 4.0, "usage": {"policy_calls": 10, "cost": 0.5}, "failures": {"OSError": 1}}
    with Journal(folder.journal) as journal, published(folder):
        journal.append("stage", "explore-1", done)
        with Progress("explore 2", 8, "tasks") as progress:
            progress.fail("TimeoutError")
            progress.spend(SPENT)
            progress.advance(2)
        status = read_status(folder)
        assert status["state"] == "running"
        now = status["now"]
        assert (now["stage"], now["done"], now["total"]) == ("explore 2", 2, 8)
        assert now["rate"] > 0
        assert now["cost_left"] == pytest.approx(4.5)
        assert status["usage"]["policy_calls"] == 40
        assert status["usage"]["cost"] == pytest.approx(2.0)
        assert main(["status", str(folder.path)]) == 0
    text = capsys.readouterr().out
    assert "explore 2: 2/8 tasks" in text
    assert "6.50 at the end of this stage" in text
    assert "OSError 1, TimeoutError 1" in text
    assert "explore-1 (4 s)" in text


def test_a_run_that_no_process_works_on_is_stopped_or_finished(folder, capsys):
    with Journal(folder.journal):
        pass
    assert read_status(folder)["state"] == "stopped"
    folder.results.write_text("{}")
    assert main(["status", str(folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "[]",
        "5",
        '{"text": "x"}',
        '{"text": 5, "host": "h", "time": 1, "process": 1}',
        '{"text": "x", "host": "h", "time": 1e999, "process": 1}',
        '{"text": "x", "host": "h", "time": 1, "process": 1, "usage": {"cost": "x"}}',
    ],
)
def test_a_damaged_status_tells_nothing(folder, capsys, written):
    with Journal(folder.journal):
        folder.status.write_text(written)
        assert main(["status", str(folder.path)]) == 0
    assert "running" in capsys.readouterr().out


def test_a_run_that_has_not_begun_is_a_users_mistake(folder, capsys):
    assert main(["status", str(folder.path)]) == 2
    assert "no journal there" in capsys.readouterr().err


def test_what_an_earlier_process_spent_counts(folder):
    with Journal(folder.journal), published(folder):
        with Progress("explore 1", 8, "tasks") as progress:
            progress.before = SPENT
            progress.spend(SPENT)
        assert read_status(folder)["usage"]["policy_calls"] == 60


def test_the_log_file_rotates_and_escapes_controls(tmp_path):
    file = tmp_path / "logs" / "rro.log"
    log = logging.getLogger("rro.test")
    with log_file.logged(file):
        for _ in range(300):
            log.warning("x" * 20_000)
        log.warning("\x1b[31mxxx")
    files = sorted(path.name for path in file.parent.iterdir())
    assert files == ["rro.log", "rro.log.1"]
    assert all(path.stat().st_size <= 5_000_000 for path in file.parent.iterdir())
    assert "WARNING \\x1b[31mxxx" in file.read_text()
    log.warning("not in the file any more")
    assert "any more" not in file.read_text()


def test_a_log_of_another_process_is_set_aside_when_it_is_long(tmp_path):
    file = tmp_path / "server.log"
    file.write_bytes(b"short")
    log_file.rotate(file)
    assert file.exists()
    file.write_bytes(b"x" * 6_000_000)
    log_file.rotate(file)
    assert not file.exists()
    assert (tmp_path / "server.log.1").stat().st_size == 6_000_000
