"""Good rows into silver: one commit, the latest delivery stands, only the dates of the batch are touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.kinds import KINDS
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER
from recsys_spark.runtime.checkpoints import checkpointed

_LISTED_DATES = 400
# So many rows of a batch are sent to where the table's rows lie; more are worth a shuffle of the whole table.
SENT_ROWS = 500_000


def merge_batch(
    lake: Lake,
    kind: str,
    rows: DataFrame,
    *,
    same_events: Mapping[str, str] | None = None,
    add: Callable[[], None] | None = None,
) -> None:
    """Merge the good rows of a batch into its table of silver.

    A matched row is replaced only by one that stands before it (`Kind.precedence`), so any order of
    deliveries ends in the same table. In a table partitioned by event_date an identity stands under one date.
    Where a later delivery corrects the date, the row under the old one is removed in the same commit. Where
    an earlier delivery arrives late, it is dropped. Dates that the table does not know are appended without
    looking at others.

    lake: that holds the table.
    kind: of the rows, a key of KINDS; its table of silver is partitioned by event_date, or by nothing.
    rows: good rows in the table's columns, unique by identity.
    same_events: source -> the one whose events it has too. What the table has of it from before that was said
        is taken for the other's.
    add: appends all the rows by another way, taken where they only have to be appended; None: there is none.
    """
    table = SILVER[kind]
    if not table.partition_by:
        lake.merge(table, rows, newer=newer(kind))
        return
    append = add or partial(lake.append, table, rows)
    if not lake.exists(table):
        append()
        return
    known = lake.read(table)
    per_date = _rows_per_date(rows)
    dates, is_small = sorted(per_date), sum(per_date.values()) <= SENT_ROWS
    identity = list(KINDS[kind].identity)
    elsewhere = _elsewhere(known, rows, kind, same_events or {}, is_small=is_small)
    gone = elsewhere.where("is_newer").select("_known.*", "event_id")
    late = elsewhere.where("NOT is_newer").select(*identity).distinct()
    has_gone, has_late = not gone.isEmpty(), not late.isEmpty()
    if has_late:
        rows = rows.join(late, on=identity, how="left_anti")
        append = partial(lake.append, table, rows)
    if not has_gone and known.where(F.col("event_date").isin(dates)).isEmpty():
        append()
        return
    if has_gone:
        dates = sorted({*dates, *_rows_per_date(gone)})
    lake.merge(table, rows, newer=newer(kind), touched=_touched(dates), gone=gone if has_gone else None)


def newer(kind: str) -> str:
    """When a row of the batch (s) stands in the place of the table's (t).

    What a table of an earlier version does not say of a row is null there, and below every value.
    """
    batch, known = (", ".join(KINDS[kind].precedence(side)) for side in ("s.", "t."))
    return f"struct({batch}) > struct({known})"


def _rows_per_date(rows: DataFrame) -> dict[date, int]:
    return {row["event_date"]: row["count"] for row in rows.groupBy("event_date").count().collect()}


def _elsewhere(
    known: DataFrame, rows: DataFrame, kind: str, same_events: Mapping[str, str], *, is_small: bool
) -> DataFrame:
    """(identity, _known, is_newer): rows that the table has under another date or source than the batch.

    _known: the date and the source that the table has. Of the whole table only the key is read: of few rows
    it has to be known which one stands.
    """
    key = ["source", "event_id"]
    place, precedence = F.struct("event_date", "source"), F.struct(*map(F.expr, KINDS[kind].precedence()))
    whose = F.col("source")
    for source, other in same_events.items():
        whose = F.when(F.col("source") == source, F.lit(other)).otherwise(whose)
    batch = rows.select(*key, place.alias("_place"))
    pairs = (
        known.select(whose.alias("source"), "event_id", place.alias("_known"))
        .join(F.broadcast(batch) if is_small else batch, on=key, how="inner")
        .where("_known <> _place")
    )
    met = checkpointed(pairs.select(*key, "_known"))
    dates = sorted(_rows_per_date(met.select("_known.event_date")))
    if not dates:
        return met.select(*key, "_known", F.lit(True).alias("is_newer"))
    named = known.alias("t").where(_touched(dates))
    before = named.select("event_id", place.alias("_known"), precedence.alias("_before"))
    after = rows.select(*key, precedence.alias("_precedence"))
    both = met.join(before, on=["event_id", "_known"], how="inner").join(after, on=key, how="inner")
    is_newer = F.col("_precedence") > F.col("_before")
    return checkpointed(both.select(*key, "_known", is_newer.alias("is_newer")))


def _touched(dates: Sequence[date]) -> str:
    """The table's side of the merge condition: partitions are pruned by it before anything is read."""
    if len(dates) > _LISTED_DATES:
        return f"t.event_date BETWEEN '{dates[0]}' AND '{dates[-1]}'"
    listed = ", ".join(f"DATE '{day}'" for day in dates)
    return f"t.event_date IN ({listed})"
