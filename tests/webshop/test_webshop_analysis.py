"""Words to terms: cases of Lucene's documentation, and the fast expression against the grammar
written out."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rro.webshop.analysis import (
    MAX_QUERY_TERMS,
    MAX_TOKEN,
    QueryError,
    analyze,
    query_terms,
    tokenize,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Women's 3.5 oz. dress", ["Women's", "3.5", "oz", "dress"]),
        ("i7-8650u w/ 1,000.50$", ["i7", "8650u", "w", "1,000.50"]),
        ("size:10 a:b a.b a,b 1:2 1;2", ["size", "10", "a:b", "a.b", "a", "b", "1", "2", "1;2"]),
        ("snake_case_1 __x__ ___ _", ["snake_case_1", "__x__"]),
        ("100\u202fml", ["100\u202fml"]),  # the narrow no-break space joins
        (
            "e\u0301t\u00ad\u200d \u0301x",
            ["e\u0301t\u00ad\u200d", "x"],
        ),  # marks belong to what precedes them
        ("日本語 ひら カタカナ", ["日", "本", "語", "ひ", "ら", "カタカナ"]),
        ("ภาษาไทย", ["ภาษาไทย"]),
        ("1\ufe0f\u20e3 #\ufe0f\u20e3 #1", ["1\ufe0f\u20e3", "#\ufe0f\u20e3", "1"]),
        (
            "👍👍🏽 👩\u200d🔬 🇩🇪🇫 ❤\ufe0f❤\ufe0e",
            ["👍", "👍🏽", "👩\u200d🔬", "🇩🇪", "❤\ufe0f", "❤"],
        ),
        ("Acme™ ★©2020 ●", ["Acme", "™", "★", "©", "2020"]),
        ("\u02c8a\u02d6b ¸", ["\u02c8a", "b"]),  # letters since Unicode 11 and later: none in 9
        ("צה\"ל א'", ['צה"ל', "א'"]),
        ("x" * 600, ["x" * 255, "x" * 255, "x" * 90]),
        (
            "a" * 254 + ".b",
            ["a" * 254, "b"],
        ),  # the window ends after the full stop, which then joins nothing
        ("", []),
    ],
)
def test_tokens_are_those_of_lucene(text, tokens):
    assert list(tokenize(text)) == tokens


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Women's running shoes", ["women", "run", "shoe"]),
        ("generalizations ponies' sky flying", ["gener", "poni", "sky", "fly"]),
        ("dog\u2019s DOG\uff07S 's of it's", ["dog", "dog", "s"]),
        ("hopping as is by", ["hop"]),
        ("machine-wash \u0130stanbul", ["machin", "wash", "istanbul"]),
        ("the of and", []),
    ],
)
def test_terms_are_stemmed_and_stop_words_go(text, terms):
    assert analyze(text) == terms


def test_query_terms_counts_repetitions_in_order_of_appearance():
    assert list(query_terms("red shoe, blue SHOES and red reds").items()) == [
        ("red", 3),
        ("shoe", 2),
        ("blue", 1),
    ]


def test_a_query_of_too_many_terms_or_with_a_lone_surrogate_is_an_error():
    words = [f"w{number}" for number in range(MAX_QUERY_TERMS)]
    assert len(query_terms(" ".join(words + words))) == MAX_QUERY_TERMS
    with pytest.raises(QueryError, match="1025 distinct terms"):
        query_terms(" ".join([*words, "one"]))
    for half in ("\ud83d", "shoe \udc4d"):
        with pytest.raises(QueryError, match="surrogate"):
            query_terms(half)


def test_half_a_character_in_a_product_text_is_ignored():
    assert analyze("red\ud83dshoe") == ["red", "shoe"]


# The grammar of Lucene 8's StandardTokenizer over one or two characters of each class. The token at
# a position is the longest string that any rule matches there: found by trying all ends, where the
# module's expression is greedy.
CLASSES = {
    "letter": "aé",
    "hebrew": "א",
    "number": "1\uff13",
    "katakana": "カ",
    "joiner": "_\u202f",
    "mid_letter": ":.'",
    "mid_number": ",.'",
    "picture": "👍👩©",
    "base": "👍👩",
    "skin": "🏽",
    "flag": "🇩",
    "mark": "\u0301\u200d\ufe0f\ufe0e\U000e0067\U000e007f\u20e3",
    "plain_mark": "\u0301\u200d\U000e0067\U000e007f\u20e3",
    "asian": "ก",
    "ideograph": "漢あ",
}


def _rules() -> re.Pattern[str]:
    of = {name: f"(?:[{characters}][{CLASSES['mark']}]*)" for name, characters in CLASSES.items()}
    emoji = {
        name: f"(?:[{CLASSES[name]}][{CLASSES['plain_mark']}]*)"
        for name in ("picture", "base", "skin")
    }
    letter, number, katakana, joiner = (
        f"(?:{of['letter']}|{of['hebrew']})",
        of["number"],
        of["katakana"],
        of["joiner"],
    )
    quote, double_quote = (f"(?:{mark}[{CLASSES['mark']}]*)" for mark in "'\"")
    part = (
        rf"(?:{katakana}(?:{joiner}*{katakana})*|(?:{of['hebrew']}(?:{quote}|{double_quote}{of['hebrew']})"
        rf"|{number}(?:(?:{joiner}*|{of['mid_number']}){number})*"
        rf"|{letter}(?:(?:{joiner}*|{of['mid_letter']}){letter})*)+)"
    )
    picture = f"(?:\u200d*{emoji['picture']}\ufe0f?|(?:\u200d*{emoji['base']})?{emoji['skin']})"
    keycap = f"[1#][{CLASSES['plain_mark']}]*\ufe0f?\u20e3[{CLASSES['plain_mark']}]*"
    rules = [
        f"{picture}(?:(?:\u200d{picture})*|\U000e0067+\U000e007f)",
        keycap,
        f"{of['flag']}{{2}}",
        f"{joiner}*{part}(?:{joiner}+{part})*{joiner}*",
        f"{of['asian']}+",
        of["ideograph"],
    ]
    return re.compile("|".join(f"(?:{rule})" for rule in rules))


RULES = _rules()
ALPHABET = sorted(set("".join(CLASSES.values())) | set(" \"#-'"))


def _longest_tokens(text: str) -> list[str]:
    tokens, start = [], 0
    while start < len(text):
        ends = (
            end
            for end in range(min(len(text), start + MAX_TOKEN), start, -1)
            if RULES.fullmatch(text, start, end)
        )
        end = next(ends, None)
        if end:
            tokens.append(text[start:end])
        start = end or start + 1
    return tokens


@given(st.text(ALPHABET, max_size=10))
@example('צ"א'.replace("צ", "א"))
@example("א.א\"א'a")
@example("👩\u200d\u200d👩\ufe0f\u200d🏽")
@example("a_カ__1.1:a")
def test_the_expression_finds_the_longest_tokens(text):
    assert list(tokenize(text)) == _longest_tokens(text)


@given(st.text(st.one_of(st.sampled_from(ALPHABET), st.characters()), max_size=40))
def test_any_text_gives_terms_that_can_be_written(text):
    for term in analyze(text):
        assert term
        assert 0 < len(term.encode()) <= 4 * MAX_TOKEN


@pytest.mark.parametrize(
    ("unit", "tokens"),
    [("_", 0), ("\u200d", 0), ("a_1", 236), ("👍\u200d", 157), ("a:", 157), ("\u05d0'", 157)],
)
def test_long_runs_without_a_space_are_cut(unit, tokens):
    """Up to 60,000 characters without a space, of the kinds that would tempt a nested
    repetition."""
    found = list(tokenize(unit * 20_000))
    assert len(found) == tokens
    assert all(len(token) <= MAX_TOKEN for token in found)
