"""WebShop's data: `rro data fetch webshop-1k` (or webshop).

The item files come from a Hugging Face data set; the two small files that the original takes from
elsewhere are made here: the colour words out of its source text, and the titles' nouns by spaCy
(once; an episode needs neither)."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from rro.environments.data_sets import DataSet, download
from rro.errors import DataError
from rro.webshop.catalogue import (
    COLOR_FILE,
    HUMAN_FILE,
    ITEM_FILES,
    NOUN_FILE,
    load_raw,
    parse_products,
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
        if isinstance(node, ast.Assign) and any(
            getattr(name, "id", "") == "COLOR_SET" for name in node.targets
        ):
            words = ast.literal_eval(node.value)
            return [str(word) for word in words]
    raise DataError(
        f"WebShop's {COLOR_SOURCE} has no COLOR_SET: is it another version than {WEBSHOP_COMMIT[:7]}?"
    )


def title_nouns(products: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Lower-cased common and proper nouns of each title, by asin. The tagging decides some rewards:
    the recordings were made with spaCy 3.6's model."""
    try:
        import spacy  # type: ignore[import-not-found,unused-ignore]

        tagger = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
    except (ImportError, OSError):
        raise DataError(
            f"{NOUN_FILE} has to be made by spaCy: pip install spacy, python -m spacy download {SPACY_MODEL}, and fetch "
            f"again; or fetch --from a folder that has {NOUN_FILE}"
        ) from None
    titles = tagger.pipe(str(product["name"]) for product in products)
    nouns = (
        [token.text.lower() for token in title if token.pos_ in ("NOUN", "PROPN")]
        for title in titles
    )
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


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def webshop_1k() -> DataSet:
    """The 1,000 products of WebShop's small catalogue."""
    return _webshop(*ITEM_FILES[0])


def webshop_full() -> DataSet:
    """The full catalogue of 1.18 million products: 5 GB, and as much time and memory as that takes."""
    return _webshop(*ITEM_FILES[1])
