"""Row rules: one named, null-safe boolean column each. A row that breaks one is quarantined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Source
from recsys_spark.errors import ConfigError
from recsys_spark.runtime.rows import frame_of

EPOCH = "1970-01-01 00:00:00"
_MICROS_PER_DAY = 86_400_000_000
# Joins several tags in one bronze string: a control character that no text holds.
TAG_JOINER = "\u001f"
# What leaves nothing to read: Unicode's white space, and the zero-width space, joiner and byte order mark.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"
)
# The time format of a source that names none.
_USUAL = "iso"
# 1990 and 2100, in seconds since 1970: what lies between them in one unit is no time of a shop in the other.
_RECENT = (631_152_000.0, 4_102_444_800.0)
# A year stands first, and by itself or with a month: Spark takes a time alone for one of the current day.
_BEGINS_WITH_A_YEAR = r"^\s*[+-]?\d{4,6}(-|\s*$)"


def is_blank(name: str) -> Column:
    """True for null, empty and white space only."""
    return blank(F.col(name))


def blank(text: Column) -> Column:
    """True for null, empty and white space only (`BLANKS`)."""
    # Nearly every text begins with a visible character of ASCII, which two comparisons of bytes tell.
    is_usual = (text >= F.lit("!")) & (text < F.lit("\x7f"))
    return F.coalesce(~is_usual & (F.ltrim(text, F.lit(BLANKS)) == ""), F.lit(True))


def latest_time(tolerance_days: int) -> Column:
    """As late as an event may be: so many days after its delivery.

    Not after its ingestion, or a lake that is built again from the same files would hold other events. Only
    where the store gives no time of delivery (0) the ingestion has to do.
    """
    delivered = F.unix_micros("delivered_at")
    known = F.coalesce(F.when(delivered > 0, delivered), F.unix_micros("ingested_at"))
    # Days of UTC are equally long: as a sum of numbers it costs nothing, as one of times a calendar a row.
    return F.timestamp_micros(known + F.lit(tolerance_days * _MICROS_PER_DAY))


def is_longer(name: str, length: int) -> Column:
    # Characters are counted one by one; of what has no more bytes than that nobody need count them.
    return F.coalesce((F.octet_length(name) > length) & (F.length(name) > length), F.lit(False))


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
        return iso_time(text)
    if time_format in {"seconds", "milliseconds"}:
        value = text.try_cast("double")
        seconds = value / F.lit(1000.0 if time_format == "milliseconds" else 1.0)
        # Beyond year 9999 the conversion itself would overflow and end the night.
        sane = F.abs(seconds) < F.lit(2.5e11)
        if time_format == "milliseconds":
            sane = sane & ~value.between(*_RECENT)  # `time_in_seconds`
        return F.when(sane, F.timestamp_micros((seconds * 1_000_000).cast("long")))
    return F.try_to_timestamp(text, F.lit(time_format))


def check_time_formats(spark: SparkSession, sources: Mapping[str, Source]) -> None:
    """ConfigError for the first source whose time_format Spark does not take: one row is read by each."""
    one = frame_of(spark, [("2026-01-31 12:00:00",)], "text string")
    for name, source in sources.items():
        if source.time_format in {_USUAL, "seconds", "milliseconds"}:
            continue
        try:
            one.select(_parsed(F.col("text"), source.time_format).alias("at")).collect()
        except (PySparkException, Py4JJavaError):
            raise ConfigError(
                f"sources.{name}.time_format = {source.time_format!r} is no pattern that Spark reads. "
                "Expected letters such as those of 'yyyy-MM-dd HH:mm:ss', or iso, seconds or milliseconds. "
                f"Next: correct sources.{name}.time_format."
            ) from None


def iso_time(text: Column) -> Column:
    """A date, with or without a time, as a timestamp; null without one. A year is its first day."""
    # Nearly every text has a dash after its year, and its first colon behind the date: a regular expression
    # would cost ten times as much.
    is_usual = (F.substring(text, 5, 1) == "-") & ~F.instr(text, ":").between(1, 4)
    return F.when(is_usual | text.rlike(_BEGINS_WITH_A_YEAR), F.try_to_timestamp(text))


def time_rules(name: str, at: Column, sources: Mapping[str, Source]) -> dict[str, Column]:
    """reason -> condition, of a time that every row must have: `at` is `name` as `point_in_time` reads it.

    A number that is a time of 1990 to 2099 only in the other unit than its source says has a reason of its
    own: milliseconds where seconds are said, or the reverse.
    """
    other: dict[str, Column] = {}
    for said, scale, reason in (
        ("seconds", 1000.0, "time_in_milliseconds"),
        ("milliseconds", 1.0, "time_in_seconds"),
    ):
        if named := [source_name for source_name, source in sources.items() if source.time_format == said]:
            is_other = (F.col(name).try_cast("double") / F.lit(scale)).between(*_RECENT)
            other[reason] = F.coalesce(F.col("source").isin(*named) & is_other, F.lit(False))
    unparsable = at.isNull() & ~any_of(other.values()) if other else at.isNull()
    return {"unparsable_time": unparsable, **other}


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
