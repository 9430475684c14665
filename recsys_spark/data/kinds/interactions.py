"""Interactions: what users did, one row an event."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules
from recsys_spark.data.kinds.kind import Columns, Kind, whose_events
from recsys_spark.data.kinds.values import is_missing, is_null_word


def _broken(clean: Clean, sources: Mapping[str, Source], *, event_at: Column) -> dict[str, Column]:
    """reason -> condition, over bronze.interactions."""
    never = F.lit(False)
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_user_id": is_missing("user_id", sources),
        "missing_item_id": is_missing("item_id", sources),
        "overlong_id": rules.any_of(
            rules.is_longer(name, clean.max_id_length)
            for name in ("user_id", "item_id", "event_id", "basket_id", "cancels_event_id")
        ),
        "unknown_event_type": ~F.coalesce(F.col("event_type").isin(clean.event_types), never),
        **rules.time_rules("event_at", event_at, sources),
        "before_epoch": F.coalesce(event_at <= F.lit(rules.EPOCH).cast("timestamp"), never),
        "future_time": F.coalesce(event_at > rules.latest_time(clean.future_tolerance_days), never),
        "bad_quantity": rules.is_bad_number("quantity", limit=clean.max_abs_value),
        **({"negative_quantity": _is_return()} if clean.returns == "quarantine" else {}),
        "bad_value": rules.is_bad_number("value", limit=clean.max_abs_value),
    }


def _is_return() -> Column:
    return F.coalesce(rules.number("quantity") < 0, F.lit(False))


def _content_key(event_at: Column, sources: Mapping[str, Source]) -> Column:
    """The identity of an event without an id: a corrected quantity or value is the same event again.

    A return and a cancellation are not the purchase that they take back, also where all else is equal.
    One instant is one, however a source spells it.
    """
    instant = F.unix_micros(event_at).cast("string")
    named = [F.coalesce(name, F.lit("")) for name in ("user_id", "item_id", "event_type", instant)]
    # The blank before it keeps a return apart from a basket of that name.
    other = F.concat_ws("\u0000", F.lit(""), F.when(_is_return(), F.lit("return")), _cancels(sources))
    return F.sha2(F.concat_ws("\u0000", *named, "basket_id", F.when(other != "", other)), 256)


def _cancels(sources: Mapping[str, Source]) -> Column:
    return F.when(~is_missing("cancels_event_id", sources), F.col("cancels_event_id"))


def _typed(clean: Clean, sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    event_at = rules.point_in_time("event_at", sources)
    own_id = F.when(~is_missing("event_id", sources), F.col("event_id"))
    columns = {
        "event_id": F.coalesce(own_id, _content_key(event_at, sources)),
        "user_id": F.col("user_id"),
        "item_id": F.col("item_id"),
        "event_type": F.col("event_type"),
        "event_at": event_at,
        "event_date": F.to_date(event_at),
        "quantity": rules.number("quantity"),
        "value": rules.number("value"),
        "basket_id": F.when(~is_null_word(F.col("basket_id"), sources), F.col("basket_id")),
        "cancels_event_id": _cancels(sources),
        "source": whose_events(sources),
    }
    return columns, _broken(clean, sources, event_at=event_at)


INTERACTIONS = Kind(
    "interactions",
    required=("user_id", "item_id", "event_type", "event_at"),
    identity=("source", "event_id"),
    typed=_typed,
    own_id="event_id",
    later=("{}event_at",),
)
