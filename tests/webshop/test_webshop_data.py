"""Fetching: from a folder, whole or not at all; what cannot be had says what to do."""

import json
import sys

import pytest

from rro.environments.data_sets import fetch
from rro.errors import DataError, UsageError
from rro.webshop import WebShopOptions, data, open_webshop
from rro.webshop.data import color_words
from rro.webshop.raw_files import COLOR_FILE, HUMAN_FILE, ITEM_FILES, NOUN_FILE
from rro.webshop.sample import sample_catalogue

FILES = (*ITEM_FILES[0], HUMAN_FILE, COLOR_FILE, NOUN_FILE)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    raw = sample_catalogue(0)
    for name, part in zip(
        FILES, (raw.products, raw.attributes, raw.human, raw.colors, raw.nouns), strict=True
    ):
        (folder / name).write_text(json.dumps(part))
    (folder / "unrelated.txt").write_text("x")
    return folder


def test_fetched_from_a_folder_it_opens(source, tmp_path, monkeypatch):
    monkeypatch.setenv("RRO_DATA", str(tmp_path / "data"))
    folder = fetch("webshop-1k", source)
    assert folder == tmp_path / "data" / "webshop-1k"
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    shop = open_webshop(WebShopOptions())
    assert len(shop.catalogue.products) == 60
    assert set(shop.provenance()["files"]) == set(FILES)
    assert "no commercial use" in shop.provenance()["license"]


def test_a_mapped_shop_is_the_one_in_memory(source, tmp_path):
    options = WebShopOptions(data=source)
    mapped = WebShopOptions(data=source, index=tmp_path / "shop")
    memory, built, opened = map(open_webshop, (options, mapped, mapped))
    for shop in (built, opened):
        assert list(shop.catalogue.products) == list(memory.catalogue.products)
        assert list(shop.goals.goals) == list(memory.goals.goals)
        assert shop.goals.prices == memory.goals.prices
        assert shop.provenance() == memory.provenance()
        for split in ("train", "test"):
            assert list(shop.tasks(split)) == list(memory.tasks(split))
    # The files are needed no more, but those of another catalogue are noticed.
    (source / ITEM_FILES[0][0]).unlink()
    assert open_webshop(mapped).tasks("test")[-1:][0].id == memory.tasks("test")[-1].id
    (source / NOUN_FILE).write_text("{}")
    with pytest.raises(DataError, match="products of another catalogue"):
        open_webshop(mapped)


def test_a_mapped_sample_is_that_sample(tmp_path):
    options = WebShopOptions(catalogue="sample", index=tmp_path / "shop")
    built, opened = open_webshop(options), open_webshop(options)
    assert opened.provenance() == built.provenance()
    assert list(opened.goals.goals) == list(built.goals.goals)
    with pytest.raises(DataError, match="products of another catalogue"):
        open_webshop(options.model_copy(update={"sample_seed": 1}))


def test_fetching_again_changes_nothing(source, tmp_path):
    target = fetch("webshop-1k", source, tmp_path / "t")
    before = {file.name: file.stat().st_mtime_ns for file in target.iterdir()}
    assert fetch("webshop-1k", source, target) == target
    assert fetch("webshop-1k", None, target) == target
    assert {file.name: file.stat().st_mtime_ns for file in target.iterdir()} == before


def test_an_incomplete_folder_is_completed(source, tmp_path):
    target = fetch("webshop-1k", source, tmp_path / "t")
    (target / NOUN_FILE).unlink()
    (target / "own.txt").write_text("mine")
    fetch("webshop-1k", source, target)
    assert (target / NOUN_FILE).exists()
    assert (target / "own.txt").read_text() == "mine"


def test_a_broken_source_leaves_no_folder(source, tmp_path):
    (source / ITEM_FILES[0][0]).write_text('[{"asin": "x"')
    with pytest.raises(DataError, match=ITEM_FILES[0][0]):
        fetch("webshop-1k", source, tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_disc_that_refuses_is_one_sentence(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be put into"):
        fetch("webshop-1k", source, tmp_path / "file" / "t")


def test_unknown_names_and_sources(tmp_path):
    with pytest.raises(UsageError, match=r"choose one of .*webshop-1k"):
        fetch("webshop-2k")
    with pytest.raises(DataError, match="not a folder"):
        fetch("webshop-1k", tmp_path / "nowhere", tmp_path / "t")


def test_nouns_without_spacy_say_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    (source / NOUN_FILE).unlink()
    with pytest.raises(DataError, match="pip install spacy"):
        fetch("webshop-1k", source, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_downloads_that_fail_say_what_to_do(source, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "COLOR_URL", (tmp_path / "nothing.py").as_uri())
    (source / COLOR_FILE).unlink()
    with pytest.raises(DataError, match="--from FOLDER"):
        fetch("webshop-1k", source, tmp_path / "t")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (source / HUMAN_FILE).unlink()
    with pytest.raises(
        DataError, match=r"items_human_ins.json could not be downloaded.*--from FOLDER"
    ):
        fetch("webshop-1k", source, tmp_path / "t")


def test_colours_are_read_out_of_the_originals_source(source, tmp_path, monkeypatch):
    text = "import re\nSIZES = ['s']\nCOLOR_SET = ['ash', 'red']\nraise SystemExit('never run')\n"
    assert color_words(text) == ["ash", "red"]
    with pytest.raises(DataError, match="COLOR_SET"):
        color_words("x = 1")
    (tmp_path / "normalize.py").write_text(text)
    monkeypatch.setattr(data, "COLOR_URL", (tmp_path / "normalize.py").as_uri())
    (source / COLOR_FILE).unlink()
    target = fetch("webshop-1k", source, tmp_path / "t")
    assert json.loads((target / COLOR_FILE).read_text()) == ["ash", "red"]
