"""The files that `benchmarks.webshop_files` makes are a shop."""

from benchmarks.webshop_files import write_files
from rro.webshop import WebShopOptions, open_webshop
from rro.webshop.sample import sample_catalogue


def test_made_files_are_a_shop(tmp_path):
    source = sample_catalogue(0)
    for name in ("one", "other"):
        write_files(tmp_path / name, source, products=90, human=5)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()
    shop = open_webshop(WebShopOptions(data=tmp_path / "one", goals="human"))
    assert len(shop.catalogue.products) == 90
    assert len(shop.goals.goals) == 5
    asins = {product.asin for product in shop.catalogue.products}
    assert asins.isdisjoint(entry["asin"] for entry in source.products)
    assert all(shop.goals.prices[goal.asin] < goal.price_limit for goal in shop.goals.goals)
    # Some words are new, the number of them is not.
    titles = {product.title for product in shop.catalogue.products}
    assert titles - {entry["name"] for entry in source.products}
    assert {len(title.split()) for title in titles} == {2}
