"""The report as files: one HTML file with its data embedded, or a folder where one file would be
too large.

The page loads nothing but its own files. Its Content-Security-Policy allows only the script and
style whose hashes it lists. Data is embedded as base64, which can neither end a script nor begin a
tag, whatever the messages say. Knows nothing of what the data is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from rro.errors import UsageError
from rro.files import write_file
from rro.report.pack import pack

# Of one file; a larger report becomes a folder.
MOST_BYTES = 5_000_000
# The order matters.
_SCRIPTS = (
    *("dom", "data", "charts", "rounds", "overview", "list", "tree", "pairs", "episodes"),
    *("training", "results", "app"),
)


def write_report(head: dict[str, Any], chunks: Sequence[str], out: Path) -> Path:
    """Write the report to `out` and return the file to open. Above MOST_BYTES, or where `out` does
    not end in .html, the report is a folder with an index.html. Raises UsageError where `out`
    cannot be written."""
    page = single_page(head, chunks)
    try:
        if out.suffix == ".html" and len(page) <= MOST_BYTES:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_file(out, page)
            return out
        return _write_folder(head, chunks, out.with_suffix("") if out.suffix == ".html" else out)
    except OSError as error:
        raise UsageError(
            f"{error.filename or out}: cannot write the report: {error.strerror}"
        ) from None


def single_page(head: dict[str, Any], chunks: Sequence[str]) -> str:
    """The whole report as one page."""
    blocks = [
        _block("head", pack(head)),
        *(_block(f"chunk-{number}", text) for number, text in enumerate(chunks)),
    ]
    return _page("\n".join(blocks))


def live_page() -> str:
    """The page of `rro view`, which asks the server for its data."""
    return _page("", "connect-src 'self'")


def policy(*more: str, nonce: str = "") -> str:
    """The page's Content-Security-Policy: run this script, use this style, show the empty icon, and
    `more` rules. `nonce` admits the data files of a folder."""
    scripts = f"'sha256-{_hash(_script())}'" + (f" 'nonce-{nonce}'" if nonce else "")
    rules = (
        "default-src 'none'",
        f"script-src {scripts}",
        f"style-src 'sha256-{_hash(_asset('style.css'))}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        *more,
    )
    return "; ".join(rules)


def _write_folder(head: dict[str, Any], chunks: Sequence[str], folder: Path) -> Path:
    """A script file per chunk: a page on disk may load scripts, but not read files."""
    packed = pack(head)
    # nobody whose text is in the data can know it
    nonce = _hash(packed + "".join(chunks))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(chunks):
        write_file(folder / "data" / f"chunk-{number}.js", f'rroChunk("{number}","{text}");\n')
    write_file(folder / "index.html", _page(_block("head", packed), nonce=nonce))
    return folder / "index.html"


def _page(data: str, *rules: str, nonce: str = "") -> str:
    parts = {
        "@POLICY@": policy(*rules, nonce=nonce),
        "@STYLE@": _asset("style.css"),
        "@NONCE@": f' nonce="{nonce}"' if nonce else "",
        "@SCRIPT@": _script(),
        "@DATA@": data,
    }
    page = _asset("page.html")
    for name, text in parts.items():
        page = page.replace(name, text, 1)
    return page


def _block(name: str, packed: str) -> str:
    return f'<script type="text/plain" id="{name}">{packed}</script>'


@cache
def _script() -> str:
    return "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)


@cache
def _asset(name: str) -> str:
    return files("rro.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
