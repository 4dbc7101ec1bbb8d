"""When two texts are the same text to a reader: composed or decomposed accents, kinds of spaces, invisible characters.

Texts are kept as they came. What compares them, and what turns them into vectors, looks at their normal form.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["likeness", "normal", "trimmed"]

#: Characters without width that say nothing: soft hyphen, zero-width space, word joiner, byte order mark. The joiners
#: U+200C and U+200D stay: they change how a word of Persian or an emoji is drawn.
_INVISIBLE = "\u00ad\u200b\u2060\ufeff"
_DROPPED = dict.fromkeys(map(ord, _INVISIBLE))
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_EDGES = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+$")
#: Letters of Cyrillic and Greek that look like Latin ones, after case folding.
_LOOKALIKES = str.maketrans("аеорсухіјѕһԁԛԝвкмнтαεικνορτυχ", "aeopcyxijshdqwbkmhtaeikvoptux")


def trimmed(text: str) -> str:
    """Return a text without spaces and invisible characters at its ends."""
    return text.strip() if text.isascii() else _EDGES.sub("", text)


def normal(text: str) -> str:
    """Return the form in which equal texts are equal: NFC, every kind of space a space, nothing invisible."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", _SPACES.sub(" ", text.translate(_DROPPED))).strip()


def likeness(text: str) -> str:
    """Return a form that texts share which are easily taken for each other, though their normal forms differ.

    Case, compatibility forms (ﬁ, ², full width), accents' order, runs of spaces, every invisible character, and letters
    of Cyrillic and Greek that look like Latin ones make no difference.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        folded = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf").translate(_LOOKALIKES)
    return " ".join(folded.split())
