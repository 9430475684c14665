"""Outcomes: what happened to what was sent, one row an event, tied to run date, campaign and item."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules
from recsys_spark.data.kinds.kind import Columns, Kind, text, whose_events
from recsys_spark.data.kinds.values import is_missing

# What befalls one item of a list, and what befalls the mail or the address.
ITEM_OUTCOMES = ("impression", "click", "purchase", "dislike", "skip")
LIST_OUTCOMES = ("open", "unsubscribe", "bounce")
OUTCOME_TYPES = (*ITEM_OUTCOMES, *LIST_OUTCOMES)
_CONTENT = ("user_id", "item_id", "outcome_type", "event_at", "run_date", "channel", "campaign")


def _broken(
    clean: Clean,
    sources: Mapping[str, Source],
    *,
    outcome_type: Column,
    event_at: Column,
    run_date: Column,
) -> dict[str, Column]:
    """reason -> condition, over bronze.outcomes."""
    never = F.lit(False)
    needs_item = F.coalesce(outcome_type.isin(*ITEM_OUTCOMES), never)
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_user_id": is_missing("user_id", sources),
        "missing_item_id": needs_item & is_missing("item_id", sources),
        "missing_run_date": run_date.isNull(),
        "missing_campaign": rules.any_of(is_missing(name, sources) for name in ("channel", "campaign")),
        "overlong_id": rules.any_of(
            rules.is_longer(name, clean.max_id_length)
            for name in ("user_id", "item_id", "event_id", "channel", "campaign")
        ),
        "unknown_outcome_type": ~F.coalesce(outcome_type.isin(*OUTCOME_TYPES), never),
        **rules.time_rules("event_at", event_at, sources),
        "before_epoch": F.coalesce(event_at <= F.lit(rules.EPOCH).cast("timestamp"), never),
        "future_time": F.coalesce(event_at > rules.latest_time(clean.future_tolerance_days), never),
    }


def _content_key(columns: Columns) -> Column:
    """The identity of an outcome without an id, made of what its texts mean and not of how they are spelt."""
    instant = F.unix_micros(columns["event_at"])
    named = [{**columns, "event_at": instant}[name].cast("string") for name in _CONTENT]
    return F.sha2(F.concat_ws("\u0000", *[F.coalesce(value, F.lit("")) for value in named]), 256)


def _typed(clean: Clean, sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    event_at = rules.point_in_time("event_at", sources)
    outcome_type = F.lower(F.trim(F.col("outcome_type")))
    # The date of one of our own runs, written as we write it, whatever the source's times look like.
    run_date = F.to_date(rules.iso_time(F.col("run_date")))
    columns = {
        "run_date": run_date,
        "channel": text("channel"),
        "campaign": text("campaign"),
        "user_id": F.col("user_id"),
        "item_id": F.when(~is_missing("item_id", sources), F.col("item_id")),
        "outcome_type": outcome_type,
        "event_at": event_at,
        "event_date": F.to_date(event_at),
        "source": whose_events(sources),
    }
    key = F.when(is_missing("event_id", sources), _content_key(columns)).otherwise(F.col("event_id"))
    return {"event_id": key, **columns}, _broken(
        clean, sources, outcome_type=outcome_type, event_at=event_at, run_date=run_date
    )


OUTCOMES = Kind(
    "outcomes",
    required=("run_date", "channel", "campaign", "user_id", "outcome_type", "event_at"),
    identity=("source", "event_id"),
    typed=_typed,
    own_id="event_id",
    later=("{}event_at",),
)
