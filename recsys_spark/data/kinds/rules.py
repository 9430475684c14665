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
        return F.try_to_timestamp(text)
    if time_format in {"seconds", "milliseconds"}:
        value = text.try_cast("double")
        seconds = value / F.lit(1000.0 if time_format == "milliseconds" else 1.0)
        # Beyond year 9999 the conversion itself would overflow and end the night.
        sane = F.abs(seconds) < F.lit(2.5e11)
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
