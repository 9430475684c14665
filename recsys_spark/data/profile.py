"""The figures that a batch is judged by: counted by Spark in one pass, judged elsewhere.

A profile is a plain mapping of names to numbers. It holds counts and days only, never a value of a row, so
whatever is made of it (expectations, pages, tables) cannot show one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Clean

Figures = dict[str, float]

# The metric under which a batch's figures stand in ops.metrics, for later nights to compare with.
PROFILE = "profile"
_DAY_ZERO = date(1970, 1, 1)
_COLUMNS = {
    "interactions": (
        "event_id",
        "user_id",
        "item_id",
        "event_type",
        "event_at",
        "quantity",
        "value",
        "basket_id",
    ),
    "items": ("item_id", "title", "category", "brand", "price"),
    "preferences": ("user_id", "item_id", "strength", "last_event_at"),
}


def good_figures(kind: str, *, clean: Clean) -> dict[str, Column]:
    """Aggregates over the good rows of a batch of interactions or items, once each.

    rows, null_<column>; interactions also out_of_range_<column>, unknown_event_type, events_<type> and
    first_day, last_day (days since 1970); items also bad_validity.
    """
    if kind == "items":
        return {**_counts(kind), "bad_validity": F.count_if(F.col("valid_to") <= F.col("valid_from"))}
    beyond = {
        f"out_of_range_{name}": F.count_if(F.isnan(name) | (F.abs(name) > clean.max_abs_value))
        for name in ("quantity", "value")
    }
    per_type = {f"events_{name}": F.count_if(F.col("event_type") == name) for name in clean.event_types}
    return {
        **_counts(kind),
        **beyond,
        "unknown_event_type": F.count_if(~F.col("event_type").isin(clean.event_types)),
        **per_type,
        "first_day": _day(F.min("event_date")),
        "last_day": _day(F.max("event_date")),
    }


def preference_figures(*, cap: float) -> dict[str, Column]:
    """Aggregates over one night's preferences: rows, null_<column>, bad_strength, bad_events, last_day."""
    strength = F.col("strength")
    return {
        **_counts("preferences"),
        "bad_strength": F.count_if(F.isnan(strength) | (strength < 0) | (strength > cap)),
        "bad_events": F.count_if(F.col("events") < 0),
        "last_day": _day(F.to_date(F.max("last_event_at"))),
    }


def aliased(expressions: Mapping[str, Column]) -> list[Column]:
    """The expressions under their names, for `agg` or `observe`."""
    return [expression.alias(name) for name, expression in expressions.items()]


def counted(rows: DataFrame, expressions: Mapping[str, Column]) -> Figures:
    """The figures of a frame: one Spark job. A figure without rows to stand on is left out."""
    return _floats(rows.agg(*aliased(expressions)).collect()[0].asDict())


def counted_by(
    rows: DataFrame, labels: str, expressions: Mapping[str, Column]
) -> dict[tuple[str, ...], Figures]:
    """The figures of the rows with each set of labels (an array column): one Spark job for all."""
    found = [row.asDict() for row in rows.groupBy(labels).agg(*aliased(expressions)).collect()]
    return {tuple(figures.pop(labels)): _floats(figures) for figures in found}


def _floats(found: Mapping[str, Any]) -> Figures:
    return {name: float(value) for name, value in found.items() if value is not None}


def duplicate_keys(rows: DataFrame, key: Sequence[str]) -> float:
    """How many rows share their key with another, beyond the first of each: one Spark job.

    Counted on 64-bit hashes: of ten million rows two different keys meet by chance once in 300,000 batches.
    """
    count = rows.agg((F.count(F.lit(1)) - F.count_distinct(F.xxhash64(*key))).alias("again"))
    return float(count.collect()[0]["again"])


def unknown_items(rows: DataFrame, known_items: DataFrame) -> float:
    """How many rows are of an item that `known_items` (item_id) does not hold: one Spark job."""
    per_item = rows.groupBy("item_id").agg(F.count(F.lit(1)).alias("rows"))
    known = known_items.select("item_id").distinct()
    unknown = per_item.join(known, on="item_id", how="left_anti").agg(F.sum("rows").alias("rows"))
    return float(unknown.collect()[0]["rows"] or 0)


def recorded(kind: str, figures: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """The figures as a stage's own: (metric, label) -> value, the label being `kind.name`."""
    return {(PROFILE, f"{kind}.{name}"): value for name, value in figures.items()}


def age_days(figures: Mapping[str, float], run_date: date) -> float | None:
    """Days from the newest row to the run date, 0 where it is later; None without rows."""
    last = figures.get("last_day")
    return None if last is None else max((run_date - _DAY_ZERO).days - last, 0.0)


def _counts(kind: str) -> dict[str, Column]:
    nulls = {f"null_{name}": F.count_if(F.col(name).isNull()) for name in _COLUMNS[kind]}
    return {"rows": F.count(F.lit(1)), **nulls}


def _day(day: Column) -> Column:
    return F.datediff(day, F.lit(_DAY_ZERO))
