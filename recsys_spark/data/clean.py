"""Bronze to silver: typed, judged row by row, deduplicated by meaning. Nothing vanishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config import Clean, Source
from recsys_spark.data import rules
from recsys_spark.data.sources import TAG_JOINER
from recsys_spark.lake.tables import FIELDS_BY_KIND, SILVER, SILVER_QUARANTINE

FIRST_DAY, LAST_DAY = "1970-01-01", "9999-12-31"
_TRUE = ("true", "t", "yes", "y", "1")
# Rows of the cleaned frame beyond the table's own columns.
JUDGEMENT = ("reject_reasons", "source_file", "content_hash", "row", "raw", "ingest_date")


def cleaned(bronze: DataFrame, kind: str, *, settings: Clean, sources: Mapping[str, Source]) -> DataFrame:
    """The silver columns of `kind` for every bronze row, plus `reject_reasons` (empty = good) and `raw`."""
    columns, broken = _TYPED[kind](settings, sources)
    typed = bronze.select(
        *[column.alias(name) for name, column in columns.items()],
        rules.reject_reasons(broken).alias("reject_reasons"),
        "source_file",
        "content_hash",
        "row",
        "ingest_date",
        "delivered_at",
        *(["source"] if "source" not in columns else []),
        raw_row(kind).alias("raw"),
    )
    content = [name for name in columns if name not in {"source", "event_date"}]
    return typed.withColumn("row_hash", F.xxhash64(*[F.col(name) for name in content]))


def raw_row(kind: str) -> Column:
    """The delivered payload as JSON, or the line as it stood where it could not be split."""
    return F.coalesce(F.col("malformed"), F.to_json(F.struct(*FIELDS_BY_KIND[kind])))


def good(rows: DataFrame) -> DataFrame:
    return rows.where(F.size("reject_reasons") == 0)


def quarantined(rows: DataFrame, *, kind: str) -> DataFrame:
    """One row per rejected delivery row, with its reasons and the row as it came."""
    rejected = rows.where(F.size("reject_reasons") > 0)
    return rejected.withColumn("kind", F.lit(kind)).select(*SILVER_QUARANTINE.columns)


def deduplicate(rows: DataFrame, *, key: Sequence[str]) -> DataFrame:
    """One row per key: the latest delivery, ties by a hash of the content, never by partitioning."""
    newest_first = Window.partitionBy(*key).orderBy(
        F.desc("delivered_at"), F.desc("row_hash"), F.desc("content_hash"), F.desc("row")
    )
    return rows.withColumn("_place", F.row_number().over(newest_first)).where("_place = 1").drop("_place")


def identity(kind: str) -> tuple[str, ...]:
    """What makes two delivered rows the same thing."""
    return ("event_id",) if kind == "interactions" else SILVER[kind].key


# A matched row is replaced by a later delivery only, so any order of deliveries ends in the same table.
NEWER = "s.delivered_at > t.delivered_at OR (s.delivered_at = t.delivered_at AND s.row_hash > t.row_hash)"


def _interactions(clean: Clean, sources: Mapping[str, Source]) -> tuple[dict[str, Column], dict[str, Column]]:
    event_at = rules.point_in_time("event_at", sources)
    content_key = F.sha2(
        F.concat_ws("\u0000", "user_id", "item_id", "event_type", "event_at", "basket_id"), 256
    )
    columns = {
        "event_id": F.when(rules.is_blank("event_id"), content_key).otherwise(F.col("event_id")),
        "user_id": F.col("user_id"),
        "item_id": F.col("item_id"),
        "event_type": F.col("event_type"),
        "event_at": event_at,
        "event_date": F.to_date(event_at),
        "quantity": rules.number("quantity"),
        "value": rules.number("value"),
        "basket_id": F.col("basket_id"),
        "source": F.col("source"),
    }
    return columns, rules.interaction_rules(clean, event_at=event_at)


def _items(clean: Clean, _sources: Mapping[str, Source]) -> tuple[dict[str, Column], dict[str, Column]]:
    tags = F.filter(F.split(F.coalesce("tags", F.lit("")), TAG_JOINER), lambda tag: F.trim(tag) != "")
    columns = {
        "item_id": F.col("item_id"),
        **{name: _text(name) for name in ("title", "category", "brand")},
        "tags": tags,
        "price": rules.number("price"),
        "is_available": _flag("is_available", default=True),
        **_validity(),
    }
    return columns, rules.item_rules(clean)


def _users(clean: Clean, _sources: Mapping[str, Source]) -> tuple[dict[str, Column], dict[str, Column]]:
    columns = {
        "user_id": F.col("user_id"),
        "country": _text("country"),
        "segment": _text("segment"),
        # Consent that is not stated is not given.
        "is_consented": _flag("is_consented", default=False),
        **_validity(),
    }
    return columns, rules.user_rules(clean)


def _audiences(clean: Clean, _sources: Mapping[str, Source]) -> tuple[dict[str, Column], dict[str, Column]]:
    columns = {"audience": F.col("audience"), "user_id": F.col("user_id"), **_validity()}
    return columns, rules.audience_rules(clean)


_TYPED = {"interactions": _interactions, "items": _items, "users": _users, "audiences": _audiences}


def _text(name: str) -> Column:
    return F.when(~rules.is_blank(name), F.trim(F.col(name)))


def _flag(name: str, *, default: bool) -> Column:
    return F.when(rules.is_blank(name), F.lit(default)).otherwise(F.lower(F.trim(F.col(name))).isin(*_TRUE))


def _validity() -> dict[str, Column]:
    """valid_from <= day < valid_to; a source without dates is valid always."""
    bounds = {"valid_from": FIRST_DAY, "valid_to": LAST_DAY}
    return {
        name: F.coalesce(F.to_date(F.try_to_timestamp(F.col(name))), F.to_date(F.lit(always)))
        for name, always in bounds.items()
    }
