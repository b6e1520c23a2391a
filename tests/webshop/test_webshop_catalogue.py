"""How WebShop's files become products, and what a broken folder says."""

import json

import pytest

from rro.errors import DataError
from rro.webshop import raw_files
from rro.webshop.analysis import QueryError
from rro.webshop.catalogue import Catalogue, build_catalogue, open_catalogue
from rro.webshop.products import parse_products
from rro.webshop.raw_files import (
    COLOR_FILE,
    HUMAN_FILE,
    ITEM_FILES,
    NOUN_FILE,
    Entries,
    RawCatalogue,
    file_hashes,
    load_raw,
)

FILES = (*ITEM_FILES[0], HUMAN_FILE, NOUN_FILE, COLOR_FILE)


def entry(asin="A1", **changes):
    return {
        "asin": asin,
        "name": "Blue Kettle",
        "full_description": "Boils.",
        "small_description": ["Fast", "Light"],
        "pricing": "$1,234.50",
        "category": "kitchen",
        "query": " Kettles ",
        "product_category": "Home › Kitchen",
        "customization_options": "",
    } | changes


def raw_of(*entries, attributes=None):
    nouns = {item["asin"]: ["kettle"] for item in entries}
    return RawCatalogue(list(entries), attributes or {}, {}, nouns, ["blue"])


def only(product_entry, **more):
    return next(parse_products(raw_of(product_entry, **more)))


class NoIndex:
    def __init__(self, answers=()):
        self.asked, self.answers = [], list(answers)

    def search(self, query, k=50):
        self.asked.append(query)
        return self.answers


@pytest.mark.parametrize(
    ("pricing", "prices", "tag"),
    [
        ("", (100.0,), "$100.0"),
        (None, (100.0,), "$100.0"),
        ("$34.00", (34.0,), "$34.0"),
        ("$1,234.50", (1234.5,), "$1234.5"),
        ("$9.99 - $12.50", (9.99, 12.5), "$9.99 to $12.5"),
        ("$1 $2 $3", (1.0, 2.0), "$1.0 to $2.0"),
    ],
)
def test_prices(pricing, prices, tag):
    product = only(entry(pricing=pricing))
    assert (product.prices, product.price_tag) == (prices, tag)


def test_options_are_normalised_and_null_ones_dropped():
    values = [{"value": " Red/White "}, {"value": "BLUE"}]
    product = only(entry(customization_options={"Color": values, "Size": None}))
    assert product.options == (("color", ("red | white", "blue")),)


def test_text_of_the_index():
    product = only(entry(customization_options={"Color": [{"value": "Red"}, {"value": "Blue"}]}))
    assert product.text() == "blue kettle boils. fast color: red, blue"


def test_defaults_and_single_bullet():
    product = only(entry(small_description="One"))
    assert product.bullets == ("One",)
    assert product.attributes == ("DUMMY_ATTR",)
    assert product.query == "kettles"
    assert only(entry(), attributes={"A1": {"attributes": []}}).attributes == ()


def test_entries_that_webshop_leaves_out():
    raw = raw_of(
        entry(), entry("nan"), entry("LONGER-THAN-TEN"), entry("A1", name="Again"), entry("A2")
    )
    assert [(product.asin, product.title) for product in parse_products(raw)] == [
        ("A1", "Blue Kettle"),
        ("A2", "Blue Kettle"),
    ]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"name": 3}, "entry 0"),
        ({"pricing": "$abc"}, "entry 0"),
        ({"pricing": "free"}, "entry 0"),
        ({"customization_options": {"Size": [{"no": "value"}]}}, "'value'"),
    ],
)
def test_a_bad_entry_is_named(broken, words):
    with pytest.raises(DataError, match=words):
        list(parse_products(raw_of(entry(**broken))))


def test_missing_keys_and_nouns_are_named():
    without = entry()
    del without["query"]
    with pytest.raises(DataError, match="entry 0 has no key 'query'"):
        list(parse_products(raw_of(without)))
    with pytest.raises(DataError, match="no entry for product A1"):
        list(parse_products(RawCatalogue([entry()], {}, {}, {}, [])))


def test_special_keywords():
    products = tuple(
        parse_products(
            raw_of(entry("A1"), entry("A2", category="garden", query="red hose"), entry("A3"))
        )
    )
    shop = Catalogue.of(products, index=NoIndex([(2, 1.0)]))
    assert shop.find(("<c>", "kitchen"), 0) == (0, 2)
    assert shop.find(("<c>", "nothing", "kitchen"), 0) == ()
    assert shop.find(("<q>", "red", "hose"), 0) == (1,)
    assert sorted(shop.find(("<r>",), 7)) == [0, 1, 2]
    assert shop.find(("a", "", "kettle"), 0) == (2,)
    assert shop.index.asked == ["a  kettle"]
    for refused in (("<c>",), ("<a>", "x"), ("\ud800",), ("<r>", "\udfff")):
        with pytest.raises(QueryError):
            shop.find(refused, 0)


def test_random_products_are_decided_by_the_seed():
    products = parse_products(raw_of(*(entry(f"A{n}") for n in range(99))))
    shop = Catalogue.of(products, index=NoIndex())
    assert shop.find(("<r>",), 1) == shop.find(("<r>", "anything"), 1)
    assert shop.find(("<r>",), 1) != shop.find(("<r>",), 2)
    assert len(set(shop.find(("<r>",), 1))) == 50


def test_an_index_is_built_where_none_is_given():
    shop = build_catalogue(raw_of(entry("A1"), entry("A2", name="Red Hose")))
    assert shop.find(("hose",), 0) == (1,)
    assert shop["A2"].title == "Red Hose"


def test_a_catalogue_in_a_folder_is_the_one_in_memory(tmp_path):
    raw = raw_of(
        entry("A1", name="Café \ud800", customization_options={"Color": [{"value": "Red"}]}),
        entry("A2", name="Red Hose", pricing="$9.99 - $12.50", query="é", category="\ud800"),
        attributes={"A2": {"instruction": "hose", "instruction_attributes": ["x"]}},
    )
    # Lone surrogates may stand in what is shown, but not in what is searched.
    raw.products[0]["name"] = "Café"
    raw.products[0]["product_category"] = "\ud800"
    memory, built = build_catalogue(raw), build_catalogue(raw, tmp_path / "shop", {"of": "tests"})
    for shop in (built, open_catalogue(tmp_path / "shop")):
        assert list(shop.products) == list(memory.products) == list(parse_products(raw))
        assert shop.products[-1] == shop["A2"] == shop.products[1:][0]
        for keywords in (("hose",), ("<c>", "kitchen"), ("<q>", "é"), ("<q>", "kettles")):
            assert shop.find(keywords, 0) == memory.find(keywords, 0)
        assert shop.find(("<q>", "é"), 0) == (1,)
        assert list(shop.asins) == ["A1", "A2"]
        assert shop.origin == {"of": "tests"}
        with pytest.raises(KeyError):
            shop.position("A3")
    with pytest.raises(DataError, match="exists already"):
        build_catalogue(raw, tmp_path / "shop")
    with pytest.raises(DataError, match="has no search index"):
        open_catalogue(tmp_path)


def test_entries_are_read_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "CHUNK", 7)
    file, entries = tmp_path / "items.json", [entry(), {}, {"a": [1, {"b": "\u203a ]["}]}]
    for text in (json.dumps(entries), json.dumps(entries, indent=2, ensure_ascii=False)):
        file.write_text(f"\n {text} \n", encoding="utf-8")
        # Each iteration reads anew.
        assert list(Entries(file)) == list(Entries(file)) == entries
    file.write_text(" [ ] ")
    assert list(Entries(file)) == []


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[", "[{}", "[{},", "[{} {}]", "[{},,{}]", "[,{}]", "[{},]", "[{}]x", '[{"a": }]'],
)
def test_what_is_no_array_of_entries_is_refused(tmp_path, text):
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(DataError, match=r"items.json cannot be read .*: fetch it again"):
        list(Entries(tmp_path / "items.json"))


def write_folder(folder, **changes):
    contents = dict(zip(FILES, ([entry()], {}, {}, {"A1": []}, ["blue"]), strict=True)) | changes
    for name, content in contents.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_folder_is_read_and_hashed(tmp_path):
    write_folder(tmp_path)
    assert list(load_raw(tmp_path).products) == [entry()]
    assert set(file_hashes(tmp_path)) == set(FILES)
    before = file_hashes(tmp_path)
    write_folder(tmp_path, **{COLOR_FILE: ["red"]})
    assert [name for name, digest in file_hashes(tmp_path).items() if digest != before[name]] == [
        COLOR_FILE
    ]


def test_a_broken_folder_says_which_file(tmp_path):
    with pytest.raises(DataError, match="missing"):
        load_raw(tmp_path)
    write_folder(tmp_path)
    (tmp_path / NOUN_FILE).unlink()
    with pytest.raises(DataError, match=NOUN_FILE):
        load_raw(tmp_path)
    write_folder(tmp_path, **{FILES[0]: '[{"asin": "A1", "na'})
    with pytest.raises(DataError, match=f"{FILES[0]} cannot be read"):
        build_catalogue(load_raw(tmp_path))
    write_folder(tmp_path, **{HUMAN_FILE: []})
    with pytest.raises(DataError, match=f"{HUMAN_FILE} contains a JSON list"):
        load_raw(tmp_path)
