"""How a delivered text becomes a value: words for nothing, flags, and texts that people and models read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html.entities import name2codepoint
from typing import TypeVar

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Source
from recsys_spark.data.kinds.rules import BLANKS, any_of, is_blank

T = TypeVar("T")

# What a flag may say, in any case; a source adds its own by true_values and false_values.
TRUE = ("true", "t", "yes", "y", "1", "1.0", "ja", "j", "oui", "si", "sí", "on")
FALSE = ("false", "f", "no", "n", "0", "0.0", "nein", "non", "off")

# Marks within a word that nobody sees: soft hyphen, zero-width space, word joiner, byte order mark.
_INVISIBLE = "[\u00ad\u200b\u2060\ufeff]"
_SPACES = r"[\s\p{Z}\p{Cc}]+"
# What visible characters of ASCII with single spaces between them do not hold: nearly every text is done.
_NEEDS_CARE = "[^ -~]|  |^ | $"
_ENTITY = "&(#?[0-9A-Za-z]{1,8});"
_BETWEEN, _IS = "\u001e", "\u001f"


def is_missing(name: str, sources: Mapping[str, Source]) -> Column:
    """Blank, or one of the words that the row's source has for nothing (null_values, any case)."""
    return is_blank(name) | is_null_word(F.col(name), sources)


def is_null_word(text: Column, sources: Mapping[str, Source]) -> Column:
    """Whether the whole text is one of null_values of the row's source, in any case."""
    found = [
        _of(names, sources) & _is_one_of(text, words)
        for words, names in _by(sources, lambda source: tuple(sorted({*map(str.lower, source.null_values)})))
        if words
    ]
    return any_of(found) if found else F.lit(False)


def is_mapped(field: str, sources: Mapping[str, Source]) -> Column:
    """Whether the row's source says where the field comes from."""
    names = [name for name, source in sources.items() if field in {*source.columns, *source.constants}]
    return F.col("source").isin(names) if names else F.lit(False)


def flag(name: str, sources: Mapping[str, Source], *, missing: Column) -> Column:
    """Whether the text is a word for true or one for false; `missing` where nothing is said, else null."""
    word = F.lower(F.trim(F.col(name), F.lit(BLANKS)))
    value = F.when(word.isin(*TRUE), F.lit(True)).when(word.isin(*FALSE), F.lit(False))
    for (true, false), names in _by(sources, _own_words):
        if true or false:
            own = F.when(word.isin(*true), F.lit(True)).when(word.isin(*false), F.lit(False))
            value = F.coalesce(F.when(_of(names, sources), own), value)
    return F.when(is_missing(name, sources), missing).otherwise(value)


def words(name: str, sources: Mapping[str, Source], *, decode: bool = False) -> Column:
    """The text as `plain` has it; null where nothing is left, or where it is a word for nothing.

    decode: whether entities of HTML become their characters first. It takes functions with a lambda, which
        keep Spark from compiling the stage.
    """
    return not_nothing(F.col(name), sources, decode=decode)


def not_nothing(text: Column, sources: Mapping[str, Source], *, decode: bool) -> Column:
    """As `words`, of any text."""
    value = F.nullif(plain(decoded(text) if decode else text), F.lit(""))
    return F.when(~is_null_word(F.trim(text, F.lit(BLANKS)), sources), value)


def plain(text: Column) -> Column:
    """The text on one line, without invisible marks: one space for a run of white space, and none around."""
    cared = F.trim(F.regexp_replace(F.regexp_replace(text, _INVISIBLE, ""), _SPACES, " "))
    return F.when(text.rlike(_NEEDS_CARE), cared).otherwise(text)


def decoded(text: Column) -> Column:
    """HTML's entities as their characters, once: `&amp;`, `&#39;`, `&#x20ac;`; what is none stays."""
    found = F.array_distinct(F.regexp_extract_all(text, F.lit(_ENTITY), F.lit(1)))
    # The ampersand comes last, or it would begin entities that nobody wrote.
    others = F.array_remove(found, "amp")
    replaced = F.aggregate(others, text, lambda done, name: F.replace(done, _entity(name), _character(name)))
    whole = F.replace(replaced, F.lit("&amp;"), F.lit("&"))
    return F.when(F.contains(text, F.lit("&")), whole).otherwise(text)


def _entity(name: Column) -> Column:
    return F.concat(F.lit("&"), name, F.lit(";"))


def _character(name: Column) -> Column:
    """What the entity of this name stands for; the entity itself where there is none of it."""
    named = F.try_element_at(_known_entities(), name)
    digits = F.when(F.lower(F.substring(name, 1, 2)) == "#x", F.conv(F.substring(name, 3, 6), 16, 10)).when(
        F.substring(name, 1, 1) == "#", F.substring(name, 2, 7)
    )
    number = digits.try_cast("long")
    is_character = number.between(0x20, 0x10FFFF) & ~number.between(0xD800, 0xDFFF)
    numbered = F.decode(F.unhex(F.lpad(F.hex(number), 8, "0")), "UTF-32")
    return F.coalesce(named, F.when(is_character, numbered), _entity(name))


def _known_entities() -> Column:
    """HTML 4's names; line ends by number; and numbers that browsers read as Windows-1252."""
    known = {name: chr(point) for name, point in name2codepoint.items()} | {"apos": "'"}
    known |= {f"#{number}": " " for number in (9, 10, 13)}
    known |= {f"#{n}": character for n in range(0x80, 0xA0) if (character := _western(n))}
    pairs = _BETWEEN.join(f"{name}{_IS}{character}" for name, character in known.items())
    return F.str_to_map(F.lit(pairs), F.lit(_BETWEEN), F.lit(_IS))


def _western(number: int) -> str:
    return bytes([number]).decode("windows-1252", errors="ignore")


def _is_one_of(text: Column, lowered: Sequence[str]) -> Column:
    """Whether the text in lower case is one of these, none of them empty; False for null."""
    # Two comparisons spare nearly every id the rest.
    first = min(letter for word in lowered for letter in (word[0], word[0].upper()))
    longest = max(len(word.encode()) for word in lowered)
    may_be = (text >= F.lit(first)) & (F.octet_length(text) <= longest)
    return F.coalesce(may_be & F.lower(text).isin(*lowered), F.lit(False))


def _own_words(source: Source) -> tuple[tuple[str, ...], tuple[str, ...]]:
    true, false = (
        tuple(sorted({word.strip().lower() for word in given}))
        for given in (source.true_values, source.false_values)
    )
    return true, false


def _of(names: Sequence[str], sources: Mapping[str, Source]) -> Column:
    """Whether the row is of one of these sources: of all there are, every row is."""
    return F.lit(True) if len(names) == len(sources) else F.col("source").isin(*names)


def _by(sources: Mapping[str, Source], setting: Callable[[Source], T]) -> Iterator[tuple[T, list[str]]]:
    """Each value of a setting, and the sources that have it."""
    groups: dict[T, list[str]] = {}
    for name, source in sources.items():
        groups.setdefault(setting(source), []).append(name)
    yield from groups.items()
