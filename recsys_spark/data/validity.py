"""Versions of items and users, read as of a day: one row an id, whatever the order of deliveries."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def known_on(versions: DataFrame, day: date, id_column: str) -> DataFrame:
    """The version of each id that began last on or before the day, also where it has ended since.

    Titles come from here: an item that is no longer sold is still in histories and in old mails. Of two
    versions that begin on one day the later delivery stands, ties by `row_hash`.
    """
    newest_first = Window.partitionBy(id_column).orderBy(
        F.desc("valid_from"), F.desc("delivered_at"), F.desc("row_hash")
    )
    begun = versions.where(F.col("valid_from") <= F.lit(day))
    return begun.withColumn("_place", F.row_number().over(newest_first)).where("_place = 1").drop("_place")


def current_on(versions: DataFrame, day: date, id_column: str) -> DataFrame:
    """The version of each id that holds on the day; no row for an id of which none does.

    A version ends at its `valid_to` or where the next one of its id begins, whichever comes first, so a
    source that gives only beginnings needs no ends.
    """
    return known_on(versions, day, id_column).where(F.lit(day) < F.col("valid_to"))
