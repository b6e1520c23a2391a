"""WebShop's data sets: `rro data fetch webshop-1k` and `rro data fetch webshop`.

The product files come from a data set on the Hugging Face Hub. Two small files are made here, once:
the colour words, read from the original's source, and the nouns of the titles, tagged by spaCy.
Episodes need neither the Hub nor spaCy.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rro.environments.data_sets import DataSet, download
from rro.errors import DataError
from rro.runs.progress import Progress
from rro.webshop.products import parse_products
from rro.webshop.raw_files import (
    COLOR_FILE,
    HUMAN_FILE,
    ITEM_FILES,
    NOUN_FILE,
    Entries,
    load_raw,
)

HUB_DATA_SET = "YWZBrandon/webshop-data"
WEBSHOP_COMMIT = "64fa2a5c15c7daa698b9ac93f5bb5437b634c9bd"
COLOR_SOURCE = "web_agent_site/engine/normalize.py"
COLOR_URL = (
    f"https://raw.githubusercontent.com/princeton-nlp/WebShop/{WEBSHOP_COMMIT}/{COLOR_SOURCE}"
)
SPACY_MODEL = "en_core_web_sm"


def _webshop(items: str, attributes: str) -> DataSet:
    def obtain(file: str, folder: Path) -> None:
        if file == COLOR_FILE:
            _write_json(folder / file, color_words(download(COLOR_URL).decode("utf-8")))
        elif file == NOUN_FILE:
            _write_json(folder / file, title_nouns(Entries(folder / items)))
        else:
            _download_from_hub(file, folder)

    return DataSet((items, attributes, HUMAN_FILE, COLOR_FILE, NOUN_FILE), obtain, _check_webshop)


def _check_webshop(folder: Path) -> None:
    for _ in parse_products(load_raw(folder)):
        pass


def color_words(source_text: str) -> list[str]:
    """The list COLOR_SET of WebShop's normalize.py, which is parsed but not run. Raises DataError
    if it has none."""
    for node in ast.parse(source_text).body:
        if isinstance(node, ast.Assign) and any(
            getattr(name, "id", "") == "COLOR_SET" for name in node.targets
        ):
            words = ast.literal_eval(node.value)
            return [str(word) for word in words]
    raise DataError(
        f"WebShop's {COLOR_SOURCE} has no COLOR_SET: is it of another version than "
        f"{WEBSHOP_COMMIT[:7]}?"
    )


def title_nouns(products: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Lower-cased common and proper nouns of each title, by product id.

    Some rewards depend on the tagging; the recordings were made with the model of spaCy 3.6. Raises
    DataError if spaCy or its model is not installed.
    """
    try:
        import spacy  # type: ignore[import-not-found,unused-ignore]

        tagger = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
    except (ImportError, OSError):
        raise DataError(
            f"making {NOUN_FILE} needs spaCy: pip install spacy, python -m spacy download "
            f"{SPACY_MODEL}, and fetch again; or fetch --from a folder that has {NOUN_FILE}"
        ) from None
    nouns = {}
    titles = ((str(product["name"]), product["asin"]) for product in products)
    with Progress("tagging titles", None, "titles") as progress:
        for title, asin in tagger.pipe(titles, as_tuples=True):
            nouns[asin] = [token.text.lower() for token in title if token.pos_ in ("NOUN", "PROPN")]
            progress.advance()
    return nouns


def _download_from_hub(file: str, folder: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download

        hf_hub_download(HUB_DATA_SET, file, repo_type="dataset", local_dir=folder)
    # Its errors of network, authorisation and cache have no common base class.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{file} could not be downloaded from the Hugging Face data set {HUB_DATA_SET} "
            f"({reason}): download it by hand and run rro data fetch with --from FOLDER"
        ) from None


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def webshop_1k() -> DataSet:
    """WebShop's small catalogue of 1,000 products."""
    return _webshop(*ITEM_FILES[0])


def webshop_full() -> DataSet:
    """WebShop's full catalogue of 1.18 million products, 5 GB of JSON."""
    return _webshop(*ITEM_FILES[1])
