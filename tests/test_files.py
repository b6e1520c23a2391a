"""Folders of weights that are whole or not there."""

import os
import signal

import pytest

from rro.files import damaged_file, is_sealed, publish, seal


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights.partial"
    (folder / "parts").mkdir(parents=True)
    for name in ("model.bin", "parts/one.bin"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_published_folder_is_whole_until_a_file_changes(weights, tmp_path):
    publish(weights, tmp_path / "weights")
    assert damaged_file(tmp_path / "weights") is None
    (tmp_path / "weights" / "parts" / "one.bin").write_bytes(b"parts/two.bin")
    assert damaged_file(tmp_path / "weights") == "parts/one.bin"


# What the process does last: the list is synced once it is written, then takes its place.
@pytest.mark.parametrize("killed_in", ["fsync", "replace"])
def test_a_process_killed_as_it_seals_leaves_nothing_that_counts(weights, monkeypatch, killed_in):
    child = os.fork()
    if child == 0:
        true, calls = getattr(os, killed_in), []

        def kill(*arguments):
            calls.append(arguments)
            if len(calls) == {"fsync": 3, "replace": 1}[killed_in]:
                os.kill(os.getpid(), signal.SIGKILL)
            return true(*arguments)

        monkeypatch.setattr(os, killed_in, kill)
        seal(weights)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not is_sealed(weights)
    assert list(weights.glob("files.json.*")) != []
    seal(weights)
    assert damaged_file(weights) is None
