"""A disk that is full at any stage is one sentence, and loses nothing: with space again, the run is
resumed and ends like an undisturbed one."""

import subprocess

import pytest
from small_runs import finish, new_run, outcome, said, start


def mount(folder, kilobytes, again=False):
    options = f"{'remount,' if again else ''}size={kilobytes}k"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = mount(folder, 64)
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system of its own can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_at_every_stage(tmp_path, small_disk):
    process = new_run(tmp_path, "rro", tmp_path / "undisturbed")
    assert finish(process) == 0, said(process)
    run, sizes, stages = small_disk / "run", range(64, 2000, 16), set()
    for size in sizes:
        assert mount(small_disk, size, again=True)
        begun = (run / "config.toml").exists()
        process = start("run", "--resume", run) if begun else new_run(tmp_path, "rro", run)
        code, printed = finish(process), said(process)
        assert "Traceback" not in printed, (size, printed)
        if code == 0:
            break
        last = [line for line in printed.splitlines() if line.strip()][-1]
        assert last.startswith("rro: "), (size, printed)
        assert "space" in last or "disk" in last, (size, printed)
        stages.add(last)
    assert len(stages) > 1
    assert outcome(run) == outcome(tmp_path / "undisturbed")
