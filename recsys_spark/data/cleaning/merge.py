"""Good rows into silver: one commit, the latest delivery stands, only the dates of the batch are touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import Table
from recsys_spark.runtime.checkpoints import checkpointed

# A matched row is replaced by a later delivery only, so any order of deliveries ends in the same table; of
# equal times by another content, as `deduplicate` has it, and of equal contents by another source's.
_NEWER = (
    "s.delivered_at > t.delivered_at OR (s.delivered_at = t.delivered_at AND (s.row_hash > t.row_hash{}))"
)
_SOURCE = " OR (s.row_hash = t.row_hash AND s.source > t.source)"
_LISTED_DATES = 400
# So many rows of a batch are sent to where the table's rows lie; more are worth a shuffle of the whole table.
SENT_ROWS = 500_000


def merge_batch(
    lake: Lake,
    table: Table,
    rows: DataFrame,
    *,
    identity: Sequence[str],
    add: Callable[[], None] | None = None,
) -> None:
    """Merge the good rows of a batch into its table of silver.

    In a table partitioned by event_date an identity stands under one date. Where a later delivery corrects
    the date, the row under the old one is removed in the same commit. Where an earlier delivery arrives late,
    it is dropped. Dates that the table does not know are appended without looking at others.

    lake: that holds the table.
    table: of silver; partitioned by event_date, or by nothing.
    rows: good rows in the table's columns, unique by identity.
    identity: columns that name a thing, whatever date it stands under.
    add: appends all the rows by another way, taken where they only have to be appended; None: there is none.
    """
    if not table.partition_by:
        lake.merge(table, rows, newer=newer(table))
        return
    append = add or partial(lake.append, table, rows)
    if not lake.exists(table):
        append()
        return
    known = lake.read(table)
    per_date = _rows_per_date(rows)
    dates, is_small = sorted(per_date), sum(per_date.values()) <= SENT_ROWS
    elsewhere = checkpointed(_under_other_dates(known, rows, identity, is_small=is_small))
    gone = elsewhere.where("is_newer").select(*identity, F.col("_known_date").alias("event_date"))
    late = elsewhere.where("NOT is_newer").select(*identity)
    has_gone, has_late = not gone.isEmpty(), not late.isEmpty()
    if has_late:
        rows = rows.join(late, on=list(identity), how="left_anti")
        append = partial(lake.append, table, rows)
    if not has_gone and known.where(F.col("event_date").isin(dates)).isEmpty():
        append()
        return
    if has_gone:
        dates = sorted({*dates, *_rows_per_date(gone)})
    lake.merge(table, rows, newer=newer(table), touched=_touched(dates), gone=gone if has_gone else None)


def newer(table: Table) -> str:
    """When a row of the batch (s) stands in the place of the table's (t)."""
    return _NEWER.format(_SOURCE if "source" in table.columns else "")


def _rows_per_date(rows: DataFrame) -> dict[date, int]:
    return {row["event_date"]: row["count"] for row in rows.groupBy("event_date").count().collect()}


def _under_other_dates(
    known: DataFrame, rows: DataFrame, identity: Sequence[str], *, is_small: bool
) -> DataFrame:
    """(identity, _known_date, is_newer): rows that the table has under another date than the batch."""
    version = ("delivered_at", "row_hash")
    table_side = known.select(
        *identity,
        F.col("event_date").alias("_known_date"),
        *[F.col(name).alias(f"_{name}") for name in version],
    )
    batch = rows.select(*identity, "event_date", *version)
    pairs = table_side.join(F.broadcast(batch) if is_small else batch, on=list(identity), how="inner")
    later = F.struct("delivered_at", "row_hash") > F.struct("_delivered_at", "_row_hash")
    other_date = pairs.where(F.col("_known_date") != F.col("event_date"))
    return other_date.select(*identity, "_known_date", later.alias("is_newer"))


def _touched(dates: Sequence[date]) -> str:
    """The table's side of the merge condition: partitions are pruned by it before anything is read."""
    if len(dates) > _LISTED_DATES:
        return f"t.event_date BETWEEN '{dates[0]}' AND '{dates[-1]}'"
    listed = ", ".join(f"DATE '{day}'" for day in dates)
    return f"t.event_date IN ({listed})"
