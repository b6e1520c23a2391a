"""Makes WebShop's files at any size: products that resemble the 1,000 that WebShop ships.

Each product is one of those with some of its words replaced, between a fifth and four fifths of
them, so that the sizes of all fields, the options, the prices and the kinds of products are as
there; the ids are its own. Nine of ten new words are words of the 1,000 products, as frequent as
there; the others are made up, so that the vocabulary goes on growing. The fields that the shop does
not read (images, ratings) are left out: 2.3 of 2.7 kB a product remain."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from rro.runs.progress import Progress
from rro.webshop.raw_files import COLOR_FILE, HUMAN_FILE, ITEM_FILES, NOUN_FILE, RawCatalogue

FULL, HUMAN_GOALS = 1_181_436, 12_087
VOCABULARY, MADE_UP = 1_000_000, 0.1
READ = (
    *("name", "full_description", "small_description", "pricing", "customization_options"),
    *("category", "query", "product_category"),
)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SYLLABLES = [consonant + vowel for consonant in "bcdfgklmnprstvz" for vowel in "aeiou"]


def write_files(folder: Path, source: RawCatalogue, products: int, human: int) -> None:
    """Put the files of a catalogue into a new folder. `human` products get an instruction as people
    write it; the same arguments give the same files."""
    folder.mkdir(parents=True)
    names = (*ITEM_FILES[1], NOUN_FILE, HUMAN_FILE)
    entries, stream = list(source.products), random.Random(0)
    reworded = partial(_reworded, words=_words(entries), stream=stream)
    wanted = set(stream.sample(range(products), min(human, products)))
    files = [(folder / name).open("w", encoding="utf-8") for name in names]
    items, attributes, nouns, instructions = (_Container(file) for file in files)
    with Progress("making products", products, "products") as progress:
        for number in range(products):
            base, asin = stream.choice(entries), id_of(number)
            known = source.attributes.get(base["asin"], {})
            items.add(json.dumps(_entry(base, asin, reworded, stream)))
            attributes.add(json.dumps(known), asin)
            nouns.add(json.dumps(source.nouns[base["asin"]]), asin)
            if number in wanted:
                instructions.add(json.dumps([_wish(base, known, stream)]), asin)
            progress.advance()
    items.close("[", "]")
    for container in (attributes, nouns, instructions):
        container.close("{", "}")
    (folder / COLOR_FILE).write_text(json.dumps(source.colors))


class _Container:
    """A JSON array or object in a file, written element by element."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._before = file, " "
        # Its place is kept for the bracket.
        file.write(" ")

    def add(self, value: str, key: str | None = None) -> None:
        self._file.write(self._before + (f'"{key}": ' if key else "") + value)
        self._before = ", "

    def close(self, first: str, last: str) -> None:
        self._file.write(last)
        self._file.seek(0)
        self._file.write(first)
        self._file.close()


def id_of(number: int) -> str:
    """Distinct ids in the form of Amazon's, in no particular order."""
    number = (number * 1_299_709_211 + 7) % 36**7
    return "B0" + "".join(_DIGITS[number // 36**place % 36] for place in range(7)) + "Q"


def _entry(base: dict[str, Any], asin: str, reworded: Any, stream: random.Random) -> dict[str, Any]:
    share = stream.uniform(0.2, 0.8)
    bullets = base["small_description"]
    return {name: base[name] for name in READ} | {
        "asin": asin,
        "name": reworded(base["name"], share),
        "full_description": reworded(base["full_description"], share),
        "small_description": [reworded(bullet, share) for bullet in bullets]
        if isinstance(bullets, list)
        else reworded(bullets, share),
    }


def _reworded(text: str, share: float, words: Iterator[str], stream: random.Random) -> str:
    parts = text.split(" ")
    for place in stream.sample(range(len(parts)), int(share * len(parts))):
        parts[place] = next(words)
    return " ".join(parts)


def _words(entries: list[dict[str, Any]]) -> Iterator[str]:
    """Words without end: of the products' titles and texts, and made up ones, of which the first
    are the most frequent."""
    texts = (
        " ".join((entry["name"], entry["full_description"], *entry["small_description"]))
        for entry in entries
    )
    known = np.array([word for text in texts for word in text.split()], dtype=object)
    rng = np.random.default_rng(0)
    while True:
        batch = known[rng.integers(len(known), size=100_000)]
        new = np.flatnonzero(rng.random(len(batch)) < MADE_UP)
        ranks = np.exp(rng.random(len(new)) * np.log(VOCABULARY)).astype(int)
        batch[new] = [_made_up(rank) for rank in ranks.tolist()]
        yield from batch


def _made_up(rank: int) -> str:
    """A word of syllables, the frequent ones short. One syllable alone might be a stop word."""
    number, word = rank + len(_SYLLABLES), ""
    while number:
        number, digit = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[digit]
    return word


def _wish(base: dict[str, Any], known: dict[str, Any], stream: random.Random) -> dict[str, Any]:
    options = base["customization_options"] or {}
    chosen = [stream.choice(values)["value"].lower() for values in options.values() if values]
    attributes = known.get("attributes") or [base["query"].lower()]
    wish = " and ".join([*attributes[:3], *chosen])
    return {
        "instruction": f"i am looking for {base['query'].lower()} that is {wish}.",
        "instruction_attributes": attributes[:3],
        "instruction_options": chosen,
    }
