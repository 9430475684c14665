"""Text that comes from data, made fit for a person's eyes: one line, bounded, not SHOUTED.

Shared by the report and the mails. Nothing here escapes: that is the template's work.
"""

from __future__ import annotations

import re
import unicodedata

# Control characters have no place in a title, and a right-to-left override could turn the rest of a page.
# The joiner U+200D stays: family emoji and Persian words need it.
_UNWANTED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_WORDS = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")  # letters and digits, apostrophes inside a word
_UNITS = frozenset(
    (
        "OZ",
        "LB",
        "LBS",
        "CT",
        "PK",
        "ML",
        "CL",
        "L",
        "G",
        "KG",
        "MG",
        "GAL",
        "QT",
        "PT",
        "FL",
        "IN",
        "FT",
        "CM",
        "MM",
        "M",
        "W",
        "V",
        "PC",
        "PCS",
    )
)
_ACRONYMS = frozenset(
    (
        "BBQ",
        "DVD",
        "CD",
        "TV",
        "USA",
        "UK",
        "NZ",
        "LED",
        "USB",
        "UHT",
        "SPF",
        "IPA",
        "AA",
        "AAA",
        "XL",
        "XXL",
        "PB",
        "GM",
        "HP",
    )
)
_SMALL = frozenset(
    ("A", "AN", "AND", "AS", "AT", "BY", "FOR", "FROM", "IN", "OF", "ON", "OR", "THE", "TO", "WITH")
)
_ABBREVIATIONS = {  # the usual ones of retail masters; an unknown one only loses its capitals
    "ASST": "Assorted",
    "BNLS": "Boneless",
    "CHKN": "Chicken",
    "CHOC": "Chocolate",
    "DNRS": "Dinners",
    "FLVR": "Flavour",
    "FLVRD": "Flavoured",
    "FRZ": "Frozen",
    "FRZN": "Frozen",
    "MISC": "Misc",
    "PLSTC": "Plastic",
    "REFRGRATD": "Refrigerated",
    "SPLY": "Supply",
    "VEG": "Veg",
    "WHL": "Whole",
}


def one_line(text: object) -> str:
    """The text on one line: runs of white space become one space, control and override marks go.

    >>> one_line("  two\\r\\n  words ")
    'two words'
    """
    return " ".join(_UNWANTED.sub("", str(text)).split())


def clip(text: object, limit: int = 90) -> str:
    """At most `limit` characters of one line; what was cut shows as an ellipsis.

    >>> clip("strawberries", 6)
    'straw…'
    """
    raw = str(text)
    # Ten kilobytes of title need not be cleaned to show ninety characters of it.
    line = one_line(raw[: 8 * limit])
    if len(line) <= limit and len(raw) <= 8 * limit:
        return line
    cut = line[: limit - 1].rstrip()
    while cut and (unicodedata.combining(cut[-1]) or cut[-1] in "\u200d\ufe0f"):
        cut = cut[:-1]  # never end inside a composed character
    return f"{cut}…"


def humanise(title: object) -> str:
    """A SHOUTED title in title case, with sizes and acronyms as they were; others unchanged.

    A title that holds any lower-case letter was written with care and is left alone.

    >>> humanise("ICE - CRUSHED/CUBED 22 LB")
    'Ice - Crushed/Cubed 22 LB'
    >>> humanise("FRZN ICE")
    'Frozen Ice'
    """
    line = one_line(title)
    if not line.isupper():  # also false for scripts without case
        return line
    return _WORDS.sub(_readable_word, line)


def _readable_word(match: re.Match[str]) -> str:
    """One word of a shouted title; its neighbours decide whether it is a unit or a small word."""
    word, before = match.group(), match.string[: match.start()]
    is_size = word in _UNITS and re.search(r"[0-9][\s/.-]*$", before) is not None
    if is_size or word in _ACRONYMS or any(letter.isdigit() for letter in word):
        return word
    if word in _ABBREVIATIONS:
        return _ABBREVIATIONS[word]
    if word in _SMALL and before.endswith(" ") and match.end() < len(match.string):
        return word.lower()
    return word[0] + word[1:].lower()
