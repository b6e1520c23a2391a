"""The report as files: nothing that an agent wrote is more than text, the page allows only itself,
and a large report becomes a folder."""

import base64
import hashlib
import re
import subprocess
import sys

import pytest
from report_toys import (
    FOREST,
    HOSTILE,
    TREE,
    Long,
    gathered,
    hostile_trees,
    make_run,
    trees,
)

from rro.cli.main import main
from rro.errors import UsageError
from rro.exploration.strategies.rising import RisingExploration
from rro.report import page
from rro.report.gather import Gatherer
from rro.report.pack import pack
from rro.report.tables import write_tables


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "toy", FOREST)


def test_no_message_is_more_than_text_in_the_file(tmp_path):
    run = make_run(tmp_path / "run", hostile_trees())
    head, chunks = gathered(run.path)
    shown = {
        text(i)
        for _, tree, text in trees(head, chunks)
        for node in tree["nodes"][1:]
        for i in node["step"][:2]
    }
    assert any(HOSTILE[0].replace(" ", "_") in text for text in shown)
    with Gatherer([run.path]) as gatherer:
        written = page.write_report(*gatherer.whole(), tmp_path / "report.html").read_text()
    assert "owned" not in written
    blocks = re.findall(r"<script[^>]*>(.*?)</script>", written, re.S)
    assert (
        len(blocks) == written.count("<script") == 1 + 1 + len(chunks)
    )  # the head, the chunks, the script
    assert all(re.fullmatch("[A-Za-z0-9+/=]+", block) for block in blocks[:-1])


def test_the_page_allows_its_own_script_and_style_alone(toy):
    written = page.single_page(*_whole(toy))
    [policy] = re.findall('http-equiv="Content-Security-Policy" content="([^"]+)"', written)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.keys() == {
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "base-uri",
        "form-action",
    }
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'",) * 3
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", written, re.S)[-1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", written)


def test_the_script_never_parses_text_as_html():
    [script] = re.findall("<script>(.*)</script>", page.live_page(), re.S)
    assert len(script) > 10_000
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "</script",
        "<!--",
    ):
        assert word not in script
    assert 'setAttribute("style"' not in script


def _whole(run):
    with Gatherer([run.path]) as gatherer:
        return gatherer.whole()


@pytest.mark.slow
def test_500_tasks_fit_in_one_file(tmp_path):
    run = make_run(
        tmp_path / "run",
        {f"task/{i}": TREE for i in range(500)},
        environment=Long,
        strategy=RisingExploration(2, 2),
    )
    written = page.write_report(*_whole(run), tmp_path / "report.html")
    assert written == tmp_path / "report.html"
    assert run.journal.stat().st_size > 5_000_000 > written.stat().st_size


def test_what_is_too_large_for_one_file_becomes_a_folder(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    head, chunks = _whole(toy)
    written = page.write_report(head, chunks, tmp_path / "report.html")
    assert written == tmp_path / "report" / "index.html"
    files = sorted(file.name for file in (tmp_path / "report" / "data").iterdir())
    assert files == [f"chunk-{number}.js" for number in range(len(chunks))]
    assert (
        tmp_path / "report" / "data" / "chunk-0.js"
    ).read_text() == f'rroChunk("0","{chunks[0]}");\n'
    text = written.read_text()
    [nonce] = re.findall('<script nonce="([^"]+)">', text)
    assert f"'nonce-{nonce}'" in text


def test_a_number_that_json_has_not_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        pack([float("nan")])


def test_the_command_writes_beside_the_run_and_says_where(capsys, toy):
    assert main(["report", str(toy.path)]) == 0
    assert capsys.readouterr().out.strip() == str(toy.path / "report.html")
    assert (toy.path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [["report", "nowhere"], ["view", "nowhere"]])
def test_no_run_folder(capsys, arguments):
    assert main(arguments) == 2
    assert "no run folder" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the report"):
        page.write_report(*_whole(toy), tmp_path / "file" / "report.html")
    with pytest.raises(UsageError, match="cannot write the tables"):
        write_tables(_whole(toy)[0], tmp_path / "file" / "tables")


def test_a_report_needs_no_trainer(toy):
    code = (
        "import sys; from rro.cli.main import main; "
        f"main(['report', {str(toy.path)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
