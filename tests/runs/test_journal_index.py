"""Places of records by kind and key: never another's, in the order in which they came, in a few
bytes each."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from rro.runs.journal_index import Index


class Clash(str):
    """A text whose hash is that of all others."""

    def __hash__(self):
        return 1


class File:
    """Names by place, as a journal holds them. Counts how often one is looked at."""

    def __init__(self):
        self.names, self.looks = {}, 0

    def name_at(self, start, length):
        self.looks += 1
        return self.names[start, length]


NAMES = st.tuples(
    st.sampled_from(["task", "rollout", "none"]),
    st.text(max_size=3).map(Clash) | st.text(max_size=3),
)


@given(st.lists(NAMES, max_size=40), st.lists(NAMES, max_size=5))
def test_it_is_a_dictionary_also_where_hashes_clash(names, others):
    file, known = File(), {}
    index = Index(file.name_at)
    for number, name in enumerate(names):
        place = known[name] = (10 * number, number)
        file.names[place] = name
        index.put(*name, *place)
    for name in [*names, *others]:
        assert index.find(*name) == known.get(name)
    assert list(index.places()) == list(known.values())
    assert list(index.places(start=2)) == list(known.values())[2:]
    for kind in ("task", "rollout", "never"):
        assert list(index.places(kind)) == [
            place for name, place in known.items() if name[0] == kind
        ]


def test_the_file_is_looked_at_only_where_a_hash_fits():
    file = File()
    index = Index(file.name_at)
    for number in range(5000):
        file.names[number, 1] = ("rollout", str(number))
        index.put("rollout", str(number), number, 1)
    assert all(index.find("rollout", f"{number}/") is None for number in range(5000))
    assert file.looks == 0
    assert index.find("rollout", "17") == (17, 1)
    assert file.looks == 1


def test_what_comes_while_one_reads_is_left_for_later():
    file = File()
    index = Index(file.name_at)
    index.put("a", "1", 0, 1)
    places = index.places()
    assert next(places) == (0, 1)
    index.put("a", "2", 1, 1)
    assert list(places) == []


def test_a_record_takes_a_few_bytes_however_long_its_key():
    tracemalloc.start()
    try:
        index, records = Index(lambda start, length: ("", "")), 50_000
        before, _ = tracemalloc.get_traced_memory()
        for number in range(records):
            index.put("rollout", f"1/{'a task with a long name':50}/{number}", 300 * number, 300)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / records < 50
