"""Searches of the original WebShop (Lucene 8.11 through Anserini), recorded on its 1000
products."""

import gzip
import json

import pytest

from rro.webshop.index import Index, build, build_folder, reported_scores
from rro.webshop.products import parse_products
from rro.webshop.raw_files import load_raw


@pytest.fixture(scope="module")
def products(shared):
    return list(parse_products(load_raw(shared / "data" / "webshop-1k")))


@pytest.fixture(scope="module")
def recordings(shared):
    with gzip.open(
        shared / "conformance" / "webshop" / "search.jsonl.gz", "rt", encoding="utf-8"
    ) as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module", params=["memory", "folder"])
def index(request, products, tmp_path_factory) -> Index:
    ids, texts = [product.asin for product in products], [product.text() for product in products]
    if request.param == "memory":
        return build(ids, texts)
    return build_folder(tmp_path_factory.mktemp("webshop") / "index", ids, texts, run_tokens=10_000)


def test_every_recorded_search_gives_the_same_products_with_the_same_scores(
    index, products, recordings
):
    assert len(recordings) == 300
    different = []
    for recording in recordings:
        hits = index.search(recording["q"])
        asins = [products[number].asin for number, _ in hits]
        scores = reported_scores([score for _, score in hits])
        if [list(hit) for hit in zip(asins, scores, strict=True)] != recording["hits"]:
            different.append(recording["q"])
    assert different == []
