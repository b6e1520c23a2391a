"""Runs the attacks on an engine, in a process whose memory and threads are watched:
`python sql_attacked.py ENGINE DATA CACHE BUSY SECONDS [KIND ...]`; prints a JSON line for each
attack, and one of the whole. BUSY is the number of threads that compute beside, SECONDS a server's
limit of time, KIND what the attacks that run begin with."""

import json
import sys
import threading
import time
from pathlib import Path

from sql_attacks import ATTACKS

from rro.intercode_sql.data import DUMP_FILE
from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.intercode_sql.server import ServerEngine


def peak(process: str) -> int:
    """The largest resident memory of a process so far, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def peaks() -> int:
    """That of this process and its child processes."""
    children = Path("/proc/self/task").glob("*/children")
    return sum(map(peak, ["self", *" ".join(file.read_text() for file in children).split()]))


def watch(gaps: list[float]) -> None:
    """The longest time for which this thread had to wait for the interpreter, in seconds of this
    process: a busy machine does not count."""
    while True:
        before = time.process_time()
        time.sleep(0.002)
        gaps[0] = max(gaps[0], time.process_time() - before)


def compute() -> None:
    while True:
        sum(range(1000))


def main(url: str, data: str, cache: str, busy: str, seconds: str, *kinds: str) -> None:
    engine = (
        SqliteEngine(Path(data) / DUMP_FILE, Path(cache))
        if url == "sqlite"
        else ServerEngine(url, allow_writer=True, seconds=float(seconds))
    )
    engine.execute("world_1", "SELECT 1")
    begun, gaps = peaks(), [0.0]
    for work in [compute] * int(busy):
        threading.Thread(target=work, daemon=True).start()
    threading.Thread(target=watch, args=(gaps,), daemon=True).start()
    for what, sql in [attack for attack in ATTACKS if attack[0].startswith(kinds or ("",))]:
        gaps[0], start = 0.0, time.monotonic()
        result = engine.execute("world_1", sql)
        seconds = time.monotonic() - start
        text = result.text
        print(json.dumps([what, seconds, gaps[0], text[:2000], len(text)]), flush=True)
    count = engine.execute("world_1", "SELECT count(*) FROM city").text
    print(json.dumps({"grown": peaks() - begun, "count": count}))
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
