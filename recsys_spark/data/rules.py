"""Row rules: one named, null-safe boolean column each. A row that breaks one is quarantined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config import Source

EPOCH = "1970-01-01 00:00:00"
# Joins several tags in one bronze string: a control character that no text holds.
TAG_JOINER = "\u001f"
# The time format of a source that names none.
_USUAL = "iso"


def is_blank(name: str) -> Column:
    """True for null, empty and white space only."""
    return F.coalesce(F.trim(F.col(name)) == "", F.lit(True))


def is_longer(name: str, length: int) -> Column:
    return F.coalesce(F.length(name) > length, F.lit(False))


def number(name: str) -> Column:
    """The text as a double, null where it is none."""
    return F.col(name).try_cast("double")


def is_bad_number(name: str, *, limit: float) -> Column:
    """Present, but no number, not finite, or beyond the limit."""
    value = number(name)
    present = ~is_blank(name)
    return present & (value.isNull() | F.isnan(value) | (F.abs(value) > limit))


def point_in_time(name: str, sources: Mapping[str, Source]) -> Column:
    """The text as a UTC timestamp by the format of the row's source; null where unparsable."""
    text = F.col(name)
    parsed = _parsed(text, _USUAL)
    # A format that is the usual one needs no branch: each is planned and compiled once per use.
    for other in sorted({source.time_format for source in sources.values()} - {_USUAL}):
        named = [source_name for source_name, source in sources.items() if source.time_format == other]
        parsed = F.when(F.col("source").isin(*named), _parsed(text, other)).otherwise(parsed)
    return parsed


def _parsed(text: Column, time_format: str) -> Column:
    if time_format == _USUAL:
        return F.try_to_timestamp(text)
    if time_format in {"seconds", "milliseconds"}:
        value = text.try_cast("double")
        seconds = value / F.lit(1000.0 if time_format == "milliseconds" else 1.0)
        # Beyond year 9999 the conversion itself would overflow and end the night.
        sane = F.abs(seconds) < F.lit(2.5e11)
        return F.when(sane, F.timestamp_micros((seconds * 1_000_000).cast("long")))
    return F.try_to_timestamp(text, F.lit(time_format))


def bad_validity(sources: Mapping[str, Source]) -> Column:
    """A validity date that is given but cannot be read, or an end that is not after its start."""
    days = {name: F.to_date(point_in_time(name, sources)) for name in ("valid_from", "valid_to")}
    unreadable = [~is_blank(name) & day.isNull() for name, day in days.items()]
    return any_of([*unreadable, F.coalesce(days["valid_to"] <= days["valid_from"], F.lit(False))])


def reject_reasons(rules: Mapping[str, Column]) -> Column:
    """The names of all rules that the row breaks, in the rules' order; empty for a good row."""
    # By way of a string: functions on arrays that take a lambda would stop Spark from compiling the stage.
    named = F.concat_ws(",", *[F.when(broken, F.lit(reason)) for reason, broken in rules.items()])
    # Texts are joined and split for rows that have one; of the others, nearly all, only conditions are asked.
    none = F.array().cast("array<string>")
    return F.when(any_of(rules.values()), F.split(named, ",")).otherwise(none)


def any_of(conditions: Iterable[Column]) -> Column:
    return reduce(lambda left, right: left | right, conditions)
