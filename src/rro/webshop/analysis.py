"""Text analysis: from text to index terms, as in the original WebShop's search engine (Anserini
0.14 on Lucene 8.11, English).

The steps are StandardTokenizer, removal of possessive 's, lower case, stop words and the Porter
stemmer. The tokenizer's grammar is Unicode word segmentation (UAX #29, Unicode 9.0) with Lucene's
additions: every ideograph and every emoji is a token, and runs of South East Asian script stay
whole. Here it is one regular expression over the property classes of the `regex` module. Characters
whose class changed in later Unicode versions are put back where they occur in practice.

Knows nothing of products or scores. Two differences from Lucene remain, neither of which affects
text seen in practice: lengths are counted in code points, not UTF-16 units, and a letter that is
also an emoji (U+2139, U+24C2, U+1F170 ...) counts as a letter even if a joiner makes it the start
of a longer emoji.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import regex  # type: ignore[import-untyped,unused-ignore]

# Lucene splits longer tokens.
MAX_TOKEN = 255
# Lucene's limit on the clauses of a query. Repeated terms share a clause.
MAX_QUERY_TERMS = 1024

_STOP_WORDS = """
    a an and are as at be but by for if in into is it no not of on or such that the their then there
    these they this to was will with"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


class QueryError(ValueError):
    """A query on which the original engine fails: more than 1024 distinct terms, or a lone
    surrogate."""


def _token_pattern() -> str:
    # Rule WB4: marks and format characters belong to the preceding character. Skin tones
    # (U+1F3FB..1F3FF) were base characters in Unicode 9 and became marks in Unicode 11.
    extend_class = r"[[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]--[\U0001F3FB-\U0001F3FF]]"
    extend = extend_class + "*+"

    # Letters. The cedilla and the modifier symbols (arrows, tone bars) became letters only after
    # Unicode 9.
    newer = r"[\xb8\u02c2-\u02c5\u02d2-\u02d7\u02de\u02df\u02e5-\u02eb\u02ed\u02ef-\u02ff]"
    letter = rf"(?:[[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]--{newer}]{extend})"
    hebrew = rf"(?:\p{{WB=Hebrew_Letter}}{extend})"
    katakana = rf"(?:\p{{WB=Katakana}}{extend})"
    # Unicode 9 left out the full-width digits; Lucene adds them.
    number = rf"(?:[\p{{WB=Numeric}}\uFF10-\uFF19]{extend})"
    # The underscore and similar characters.
    joiner = rf"(?:\p{{WB=ExtendNumLet}}{extend})"
    # Characters that join two letters ("c:d", "o.k") or two digits ("1,000"). The apostrophe does
    # both.
    mid_letter = rf"(?:[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{extend})"
    mid_number = rf"(?:[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{extend})"
    # Hebrew abbreviations keep a quotation mark, or an apostrophe at the end. The letter before it
    # must not match as an ordinary one: this expression takes the first alternative, Lucene the
    # longest.
    abbreviation = rf"""{hebrew}(?:"{extend}{hebrew}|'{extend})"""
    letters = rf"{letter}(?:{joiner}*+(?!{abbreviation}){letter}|{mid_letter}{letter})*+"
    numbers = rf"{number}(?:(?:{joiner}*+|{mid_number}){number})*+"
    part = rf"(?:{katakana}(?:{joiner}*+{katakana})*+|(?:{abbreviation}|{numbers}|{letters})++)"
    # The look-behind only prevents quadratic time on long runs of joiners.
    word = rf"(?:(?<!\p{{WB=ExtendNumLet}}){joiner}++)?{part}(?:{joiner}++{part})*+{joiner}*+"

    south_east_asian = rf"(?:\p{{Line_Break=Complex_Context}}{extend})++"
    ideograph = rf"[\p{{Script=Han}}\p{{Script=Hiragana}}]{extend}"
    return "|".join([word, south_east_asian, ideograph, _emoji_pattern(extend_class)])


def _emoji_pattern(extend_class: str) -> str:
    """Emoji sequences of UTS #51 (Emoji 11.0).

    The set is explicit because later Unicode versions narrowed the property, and product texts are
    full of the stars and dingbats that were dropped. It includes the copyright and trade mark
    signs.
    """
    pictures = (
        r"[\xA9\xAE\u203C\u2049\u2122\u2139\u2194-\u2199\u21A9\u21AA\u231A\u231B\u2328\u2388\u23CF"
        r"\u23E9-\u23F3\u23F8-\u23FA\u24C2\u25AA\u25AB\u25B6\u25C0\u25FB-\u25FE\u2600-\u2605"
        r"\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271D\u2721\u2728\u2733"
        r"\u2734\u2744\u2747\u274C\u274E\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27A1\u27B0"
        r"\u27BF\u2934\u2935\u2B05-\u2B07\u2B1B\u2B1C\u2B50\u2B55\u3030\u303D\u3297\u3299"
        r"\U0001F000-\U0001F0FF\U0001F10D-\U0001F10F\U0001F12F\U0001F16C-\U0001F171\U0001F17E"
        r"\U0001F17F\U0001F18E\U0001F191-\U0001F19A\U0001F1AD-\U0001F1E5\U0001F201-\U0001F20F"
        r"\U0001F21A\U0001F22F\U0001F232-\U0001F23A\U0001F23C-\U0001F23F\U0001F249-\U0001F3FA"
        r"\U0001F400-\U0001F53D\U0001F546-\U0001F64F\U0001F680-\U0001F6FF\U0001F774-\U0001F77F"
        r"\U0001F7D5-\U0001F7FF\U0001F80C-\U0001F80F\U0001F848-\U0001F84F\U0001F85A-\U0001F85F"
        r"\U0001F888-\U0001F88F\U0001F8AE-\U0001F8FF\U0001F90C-\U0001F93A\U0001F93C-\U0001F945"
        r"\U0001F947-\U0001FFFD]"
    )
    skin_bases = (
        r"[\u261D\u26F9\u270A-\u270D\U0001F385\U0001F3C2-\U0001F3C4\U0001F3C7\U0001F3CA-\U0001F3CC"
        r"\U0001F442\U0001F443\U0001F446-\U0001F450\U0001F466-\U0001F469\U0001F46E"
        r"\U0001F470-\U0001F478\U0001F47C\U0001F481-\U0001F483\U0001F485-\U0001F487\U0001F4AA"
        r"\U0001F574\U0001F575\U0001F57A\U0001F590\U0001F595\U0001F596\U0001F645-\U0001F647"
        r"\U0001F64B-\U0001F64F\U0001F6A3\U0001F6B4-\U0001F6B6\U0001F6C0\U0001F6CC"
        r"\U0001F918-\U0001F91C\U0001F91E\U0001F91F\U0001F926\U0001F930-\U0001F939\U0001F93D"
        r"\U0001F93E\U0001F9B5\U0001F9B6\U0001F9B8\U0001F9B9\U0001F9D1-\U0001F9DD]"
    )
    skin = r"[\U0001F3FB-\U0001F3FF]"
    # Bounded for speed; a token cannot hold more.
    zero_width = r"\u200D{0,250}+"
    # Marks other than presentation selectors. A zero-width joiner counts as a mark unless it joins
    # the next picture.
    plain = rf"[{extend_class}--[\uFE0E\uFE0F\u200D]]"
    mark = rf"(?:{plain}|\u200D(?!{zero_width}{pictures}|{skin}))*+"
    picture = (
        rf"(?:(?:{zero_width}{skin_bases}{mark})?{skin}{mark}|{zero_width}{pictures}{mark}\uFE0F?)"
    )
    sequence = rf"{picture}(?:(?:\u200D{picture})++|[\U000E0020-\U000E007E]++\U000E007F)?"
    # Keycaps of digits match as words already; U+20E3 is itself a mark.
    keycap = rf"[#*][{plain}\u200D]*\uFE0F?\u20E3[{plain}\u200D]*+"
    flag = rf"(?:\p{{WB=Regional_Indicator}}{extend_class}*+){{2}}"
    return rf"{sequence}|{keycap}|{flag}"


_TOKEN: Any = regex.compile(_token_pattern(), regex.V1)


def tokenize(text: str) -> Iterator[str]:
    """The tokens of `text` in order, as Lucene's StandardTokenizer returns them (case kept)."""
    position = 0
    while match := _TOKEN.search(text, position):
        position, end = match.span()
        if end - position <= MAX_TOKEN:
            yield match[0]
            position = end
        # Of a longer one, Lucene's scanner sees 255 characters at a time.
        while position < end:
            match = _TOKEN.match(text, position, position + MAX_TOKEN)
            if match:
                yield match[0]
            position = match.end() if match else position + 1


def analyze(text: str) -> list[str]:
    """The index terms of `text` in order, with repetitions."""
    # No token spans a space, and most words of a catalogue repeat.
    terms: list[str] = []
    for chunk in text.split(" "):
        terms += _chunk_terms(chunk) if len(chunk) < MAX_TOKEN else _terms(chunk)
    return terms


def has_surrogates(text: str) -> bool:
    """Whether the text contains a lone surrogate, which no index holds and UTF-8 cannot encode."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def query_terms(query: str) -> Counter[str]:
    """Counts of the query's distinct terms, in order of appearance. Raises QueryError if the
    original engine fails on the query."""
    if has_surrogates(query):
        raise QueryError("the query contains a lone surrogate")
    terms = Counter(analyze(query))
    if len(terms) > MAX_QUERY_TERMS:
        raise QueryError(
            f"the query has {len(terms)} distinct terms; the limit is {MAX_QUERY_TERMS}"
        )
    return terms


@lru_cache(maxsize=1 << 17)
def _chunk_terms(chunk: str) -> tuple[str, ...]:
    return _terms(chunk)


def _terms(text: str) -> tuple[str, ...]:
    return tuple(term for token in tokenize(text) if (term := _term(token)))


@lru_cache(maxsize=1 << 17)
def _term(token: str) -> str:
    """The term of a token, or "" for a stop word."""
    if token[-2:-1] in ("'", "\u2019", "\uff07") and token[-1] in "sS":
        token = token[:-2]
    word = token.lower() if token.isascii() else "".join(map(_lower, token))
    return "" if word in STOP_WORDS else _porter().stem(word, to_lowercase=False)


def _lower(character: str) -> str:
    """Java's Character.toLowerCase, which returns a single character: without the combining dot
    that Python adds to the Turkish dotted I."""
    return character.lower()[:1]


@cache
def _porter() -> Any:
    # Imported late because NLTK takes a third of a second. This mode follows Martin Porter's own
    # implementation, as Lucene does.
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer(PorterStemmer.MARTIN_EXTENSIONS)
