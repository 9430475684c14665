"""The figures that a batch is judged by: counted by Spark in one pass, judged elsewhere.

Figures are a plain mapping of names to numbers. They are counts and days only, never a value of a row, so
whatever is made of them (expectations, pages, tables) cannot show one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean
from recsys_spark.data.cleaning.clean import is_rejected
from recsys_spark.data.kinds.outcomes import OUTCOME_TYPES
from recsys_spark.runtime.checkpoints import checkpointed

Figures = dict[str, float]

# The metric under which a batch's figures stand in ops.metrics, for later nights to compare with.
BATCH_METRIC = "profile"
# What the number of rows that broke a rule is called, before the rule's name.
REJECT = "reject_"
DAY_ZERO = date(1970, 1, 1)
_NO_SHOP_YET = date(2000, 1, 1)
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
    "users": ("user_id", "country", "region", "segment", "age_band", "is_consented"),
    "audiences": ("audience", "user_id"),
    "outcomes": (
        "event_id",
        "run_date",
        "channel",
        "campaign",
        "user_id",
        "item_id",
        "outcome_type",
        "event_at",
    ),
    "preferences": ("user_id", "item_id", "strength", "last_event_at"),
}


def good_figures(kind: str, *, clean: Clean, among: Column) -> dict[str, Column]:
    """Aggregates over the rows of a batch of one kind of which `among` is true, once each.

    rows, null_<column>; interactions also out_of_range_<column>, unknown_event_type, events_<type>,
    before_2000, in_january, on_first and first_day, last_day (days since 1970); items, users and audiences
    bad_validity; users consented; outcomes unknown_outcome_type, before_2000 and outcomes_<type>.
    """
    if kind == "outcomes":
        return {**_counts(kind, among), **_outcome_figures(among)}
    if kind != "interactions":
        ends_early = F.col("valid_to") <= F.col("valid_from")
        consented = {"consented": F.count_if(among & F.col("is_consented"))} if kind == "users" else {}
        return {**_counts(kind, among), "bad_validity": F.count_if(among & ends_early), **consented}
    beyond = {
        f"out_of_range_{name}": F.count_if(among & (F.isnan(name) | (F.abs(name) > clean.max_abs_value)))
        for name in ("quantity", "value")
    }
    per_type = {
        f"events_{name}": F.count_if(among & (F.col("event_type") == name)) for name in clean.event_types
    }
    day = F.when(among, F.col("event_date"))
    return {
        **_counts(kind, among),
        **beyond,
        "unknown_event_type": F.count_if(among & ~F.col("event_type").isin(clean.event_types)),
        **per_type,
        "before_2000": F.count_if(among & (F.col("event_date") < F.lit(_NO_SHOP_YET))),
        "in_january": F.count_if(among & (F.month("event_date") == 1)),
        "on_first": F.count_if(among & (F.dayofmonth("event_date") == 1)),
        "first_day": _day(F.min(day)),
        "last_day": _day(F.max(day)),
    }


def _outcome_figures(among: Column) -> dict[str, Column]:
    of_type = F.col("outcome_type")
    return {
        "unknown_outcome_type": F.count_if(among & ~of_type.isin(*OUTCOME_TYPES)),
        "before_2000": F.count_if(among & (F.col("event_at") < F.lit(_NO_SHOP_YET).cast("timestamp"))),
        **{f"outcomes_{name}": F.count_if(among & (of_type == name)) for name in OUTCOME_TYPES},
    }


def reason_figures(reasons: Iterable[str]) -> dict[str, Column]:
    """Aggregates over a judged batch: rejected, and reject_<reason> of each; several may hold for one row."""
    per_reason = {
        f"{REJECT}{reason}": F.count_if(is_rejected() & F.array_contains("reject_reasons", reason))
        for reason in reasons
    }
    return {"rejected": F.count_if(is_rejected()), **per_reason}


def preference_figures(*, cap: float) -> dict[str, Column]:
    """Aggregates over one night's preferences: rows, null_<column>, bad_strength, bad_events, last_day."""
    strength = F.col("strength")
    return {
        **_counts("preferences", F.lit(True)),
        "bad_strength": F.count_if(F.isnan(strength) | (strength < 0) | (strength > cap)),
        "bad_events": F.count_if(F.col("events") < 0),
        "last_day": _day(F.to_date(F.max("last_event_at"))),
    }


def aliased(expressions: Mapping[str, Column]) -> list[Column]:
    """The expressions under their names, for `agg` or `observe`."""
    return [expression.alias(name) for name, expression in expressions.items()]


def counted(rows: DataFrame, expressions: Mapping[str, Column]) -> Figures:
    """The figures of a frame: one Spark job. A figure without rows to stand on is left out."""
    return floats(rows.agg(*aliased(expressions)).collect()[0].asDict())


def checkpointed_and_counted(
    rows: DataFrame, expressions: Mapping[str, Column], level: StorageLevel
) -> tuple[DataFrame, Figures]:
    """The rows as `checkpointed` keeps them, and their figures, counted in the same pass."""
    figures = Observation()
    result = checkpointed(rows.observe(figures, *aliased(expressions)), level)
    return result, floats(figures.get)


def added_up(one: Figures, other: Figures) -> Figures:
    """The figures of two frames as those of both together."""
    total = {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}
    for name, of in (("first_day", min), ("last_day", max)):
        if days := [figures[name] for figures in (one, other) if name in figures]:
            total[name] = of(days)
    return total


def floats(counts: Mapping[str, Any]) -> Figures:
    return {name: float(value) for name, value in counts.items() if value is not None}


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
    return {(BATCH_METRIC, f"{kind}.{name}"): value for name, value in figures.items()}


def age_days(figures: Mapping[str, float], run_date: date) -> float | None:
    """Days from the newest row to the run date, 0 where it is later; None without rows."""
    last = figures.get("last_day")
    return None if last is None else max((run_date - DAY_ZERO).days - last, 0.0)


def _counts(kind: str, among: Column) -> dict[str, Column]:
    nulls = {f"null_{name}": F.count_if(among & F.col(name).isNull()) for name in _COLUMNS[kind]}
    return {"rows": F.count_if(among), **nulls}


def _day(day: Column) -> Column:
    return F.datediff(day, F.lit(DAY_ZERO))
