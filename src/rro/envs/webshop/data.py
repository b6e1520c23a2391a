"""Where benchmark data lies, and how it gets there: `rro data fetch NAME [--from FOLDER]`.

WebShop's item files come from a Hugging Face data set; the two small files that the original takes from elsewhere are made
here: the colour words out of its source text, and the titles' nouns by spaCy (once; an episode needs neither).
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.envs.webshop.catalogue import COLOR_FILE, HUMAN_FILE, ITEM_FILES, NOUN_FILE, load_raw, parse_products
from rro.errors import DataError, UsageError

HUB_DATA_SET = "YWZBrandon/webshop-data"
WEBSHOP_COMMIT = "64fa2a5c15c7daa698b9ac93f5bb5437b634c9bd"
COLOR_SOURCE = "web_agent_site/engine/normalize.py"
COLOR_URL = f"https://raw.githubusercontent.com/princeton-nlp/WebShop/{WEBSHOP_COMMIT}/{COLOR_SOURCE}"
SPACY_MODEL = "en_core_web_sm"


@dataclass(frozen=True)
class DataSet:
    """How one data set is had. `files` in the order they are needed; `obtain(file, folder)` downloads or makes one of them
    in `folder`, where those before it lie already; `check(folder)` raises DataError where the whole is not usable."""

    files: tuple[str, ...]
    obtain: Callable[[str, Path], None]
    check: Callable[[Path], None]


def data_root() -> Path:
    """$RRO_DATA, or `data` in the working directory."""
    return Path(os.environ.get("RRO_DATA") or "data")


def data_folder(name: str) -> Path:
    """The folder of a fetched data set. Raises DataError that says how to fetch it."""
    folder = data_root() / name
    if not folder.is_dir():
        raise DataError(f"no data at {folder}: run rro data fetch {name} (or set RRO_DATA, or the option data)")
    return folder


def fetch(name: str, source: Path | None = None, target: Path | None = None) -> Path:
    """Put data set `name` into `target` (default: data_root()/name) and return that folder.

    Files that `source` has are copied; with no source all are downloaded or made; what a source lacks is, too. The folder
    appears whole or not at all, and a complete one is left as it is. Raises UsageError for an unknown name, DataError for
    files that cannot be had or are not what they should be."""
    if name not in DATA_SETS:
        raise UsageError(f"unknown data set {name!r}: choose one of {', '.join(DATA_SETS)}")
    if source is not None and not source.is_dir():
        raise DataError(f"{source} is not a folder with the files of {name}")
    data_set, target = DATA_SETS[name], target or data_root() / name
    if all((target / file).exists() for file in data_set.files):
        data_set.check(target)
        return target
    try:
        _fill(data_set, source, target)
    except OSError as error:
        raise DataError(f"{name} could not be put into {target}: {error}") from error
    return target


def _fill(data_set: DataSet, source: Path | None, target: Path) -> None:
    """Gather the files beside the target, check them, and move them in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        for file in data_set.files:
            given = next((place / file for place in (source, target) if place and (place / file).exists()), None)
            if given is not None:
                shutil.copyfile(given, folder / file)
            else:
                data_set.obtain(file, folder)
        data_set.check(folder)
        if not target.exists():
            folder.rename(target)
            return
        for file in data_set.files:
            os.replace(folder / file, target / file)


def _webshop(items: str, attributes: str) -> DataSet:
    def obtain(file: str, folder: Path) -> None:
        if file == COLOR_FILE:
            _write_json(folder / file, color_words(_download_text(COLOR_URL)))
        elif file == NOUN_FILE:
            _write_json(folder / file, title_nouns(json.loads((folder / items).read_bytes())))
        else:
            _download_from_hub(file, folder)

    return DataSet((items, attributes, HUMAN_FILE, COLOR_FILE, NOUN_FILE), obtain, _check_webshop)


def _check_webshop(folder: Path) -> None:
    for _ in parse_products(load_raw(folder)):
        pass


def color_words(source_text: str) -> list[str]:
    """The list COLOR_SET of WebShop's normalize.py, read without running it."""
    for node in ast.parse(source_text).body:
        if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "COLOR_SET" for name in node.targets):
            words = ast.literal_eval(node.value)
            return [str(word) for word in words]
    raise DataError(f"WebShop's {COLOR_SOURCE} has no COLOR_SET: is it another version than {WEBSHOP_COMMIT[:7]}?")


def title_nouns(products: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Lower-cased common and proper nouns of each title, by asin. The tagging decides some rewards: the recordings were made
    with spaCy 3.6's model."""
    try:
        import spacy  # type: ignore[import-not-found,unused-ignore]

        tagger = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
    except (ImportError, OSError):
        raise DataError(
            f"{NOUN_FILE} has to be made by spaCy: pip install spacy, python -m spacy download {SPACY_MODEL}, and fetch "
            f"again; or fetch --from a folder that has {NOUN_FILE}"
        ) from None
    titles = tagger.pipe(str(product["name"]) for product in products)
    nouns = ([token.text.lower() for token in title if token.pos_ in ("NOUN", "PROPN")] for title in titles)
    return {product["asin"]: found for product, found in zip(products, nouns, strict=True)}


def _download_from_hub(file: str, folder: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download

        hf_hub_download(HUB_DATA_SET, file, repo_type="dataset", local_dir=folder)
    except Exception as error:  # its network, authorisation and cache errors share no base class
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{file} could not be downloaded from the Hugging Face data set {HUB_DATA_SET} ({reason}): download it by hand "
            "and run rro data fetch with --from FOLDER"
        ) from None


def _download_text(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{url} could not be downloaded ({error}): run rro data fetch with --from FOLDER") from None


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


DATA_SETS: dict[str, DataSet] = {
    "webshop-1k": _webshop(*ITEM_FILES[0]),
    "webshop": _webshop(*ITEM_FILES[1]),  # the full catalogue: 5 GB, and as much time and memory as that takes
}
