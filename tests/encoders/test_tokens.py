import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmax.encoders.tokens import STEMMERS, Tokenizer, kind_of

plain = Tokenizer("none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cats’ 3 cats", ["the", "cats", "3", "cats"]),
        ("STRASSE straße ﬁne", ["strasse", "strasse", "fine"]),  # casefold, compatibility forms
        ("SKU-4711 or 4711", ["sku", "4711", "sku-4711", "or", "4711"]),
        ("well-known e.g. U.S.", ["well", "known", "e", "g", "u", "s"]),  # no digit: no code
        ("C C++ C#", ["c", "c", "c++", "c", "c#"]),
        ("v2.0 a_b", ["v2", "0", "v2.0", "a_b"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs belong to their word
        ("한국어 문장", ["한국어", "문장"]),
        ("猫が好き", ["猫", "が", "好", "き", "猫が", "が好", "好き"]),
        ("iPhoneは猫", ["iphone", "は", "猫", "は猫"]),
        ("ไทย", ["ไ", "ท", "ย", "ไท", "ทย"]),
        ("❤️ ❤ 👩🏽‍🚀 🇩🇪🇫🇷", ["❤", "❤", "👩🏽‍🚀", "🇩🇪", "🇫🇷"]),
        ("", []),
        (" \n!?…", []),
        ("\ud800x", ["x"]),  # half a character
    ],
)
def test_words(text, words):
    assert plain.words(text) == words


def test_parts_are_runs_of_four_with_edges():
    assert plain.parts("Sorted a SKU-4711") == [
        *(" sor", "sort", "orte", "rted", "ted "),
        " a ",
        *(" sku", "sku "),
        *(" 471", "4711", "711 "),
    ]
    assert plain.parts("猫が好き ❤") == []  # their words are parts already


def test_pairs_are_neighbours():
    assert Tokenizer("english").pairs("Sorting cats, SKU-4711 ❤") == ["sort cat", "cat sku", "sku 4711", "4711 ❤"]
    assert plain.pairs("猫が好き") == plain.pairs("one") == plain.pairs("") == []
    (ab, _), (ba, _) = plain.count(["a b", "b a"])
    assert len(set(ab.tolist()) ^ set(ba.tolist())) == 2  # order counts


def test_stems():
    assert Tokenizer("english").words("sorting cats") == ["sort", "cat"]
    assert Tokenizer("german").words("Katzen laufen") == ["katz", "lauf"]
    for name in STEMMERS:
        Tokenizer(name).words("word")
    with pytest.raises(ValueError, match="stemmer"):
        Tokenizer("klingon")


@given(st.lists(st.text(max_size=40), max_size=5))
def test_keys_count_words_and_parts(texts):
    found = plain.count(texts)
    assert len(found) == len(texts)
    alone = [plain.count([text])[0] for text in texts]
    for text, (keys, counts), (keys_alone, counts_alone) in zip(texts, found, alone, strict=True):
        assert (keys[1:] > keys[:-1]).all()
        np.testing.assert_array_equal(keys, keys_alone)  # whatever other texts there are
        np.testing.assert_array_equal(counts, counts_alone)
        for kind, tokens in enumerate((plain.words(text), plain.parts(text), plain.pairs(text))):
            mine = kind_of(keys) == kind
            assert counts[mine].sum() == len(tokens)
            assert mine.sum() == len(set(tokens))


#: The last two bits are the kind.
KEPT = {
    -907978256729092811: 2,
    4602077246093094402: 1,
    8011267629324171524: 2,
    8011267629324171525: 2,
    8105596005084520169: 2,
}


def test_keys_stay_the_same():
    """Saved models depend on them."""
    keys, counts = plain.count(["fire fire"])[0]
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == KEPT
