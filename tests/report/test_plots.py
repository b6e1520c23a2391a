"""Charts as files, and what is said without matplotlib."""

import sys

import pytest
from report_toys import FOREST, gathered, make_rounds, make_run

from rro.cli.main import main


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "toy", FOREST)


def test_plots_are_files(tmp_path, toy):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (rro[plots])")
    other = make_run(tmp_path / "other$x$", FOREST, seed=3)
    head, _ = gathered(toy.path, other.path)
    from rro.report.plots import write_plots

    written = write_plots(head, tmp_path / "plots")
    stems = {path.stem for path in written}
    assert stems == {
        "rewards",
        "differences",
        "candidates-per-step",
        "rising-by-stage",
        "process-reward",
        "reward-against-cost",
    }
    assert {path.suffix for path in written} == {".svg", ".png"}
    assert "other$x$" in (tmp_path / "plots" / "rewards.svg").read_text()
    before = (tmp_path / "plots" / "rewards.svg").read_bytes()
    write_plots(head, tmp_path / "plots")
    assert (tmp_path / "plots" / "rewards.svg").read_bytes() == before


def test_several_rounds_have_a_plot_of_their_own(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (rro[plots])")
    head, _ = gathered(make_rounds(tmp_path / "run", FOREST).path)
    from rro.report.plots import write_plots

    stems = {path.stem for path in write_plots(head, tmp_path / "plots")}
    assert "reward-by-round" in stems


def test_plots_without_matplotlib_fail_before_the_work(tmp_path, toy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = tmp_path / "report.html"
    arguments = ["report", str(toy.path), "--out", str(report), "--plots", str(tmp_path / "plots")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "rro: --plots needs matplotlib: pip install 'rro[plots]'\n"
    assert list(tmp_path.iterdir()) == []
