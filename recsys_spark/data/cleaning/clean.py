"""Bronze to silver: typed, judged row by row, deduplicated by meaning. Nothing vanishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Observation, Window
from pyspark.sql import functions as F
from pyspark.sql.types import MapType

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import KINDS, rules
from recsys_spark.lake.tables import FIELDS_BY_KIND, SILVER, SILVER_QUARANTINE

# Where a rejected row came from, and how it came; null in good rows, which stand for themselves.
ORIGIN = ("source_file", "content_hash", "ingest_date", "raw")
REPEATED = "repeated"
# Of a slot's 64 bits; 24 are left for the day, which is below 2^22 up to the year 9999.
_HASH_BITS = 40


def cleaned(bronze: DataFrame, kind: str, *, settings: Clean, sources: Mapping[str, Source]) -> DataFrame:
    """The silver columns of `kind` for every bronze row, `reject_reasons` (empty = good), and ORIGIN."""
    columns, broken = KINDS[kind].typed(settings, sources)
    columns.setdefault("source", F.col("source"))
    # As delivered, under names of their own: they are looked at again for rejected rows only.
    kept = ("malformed", "source", *FIELDS_BY_KIND[kind], *ORIGIN[:-1])
    payload = [F.col(name).alias(f"_{name}") for name in kept]
    judged = bronze.select(
        *[column.alias(name) for name, column in columns.items()],
        "delivered_at",
        "row",
        rules.reject_reasons(broken).alias("reject_reasons"),
        *payload,
    )
    content = [name for name in columns if name not in {"source", "event_date"}]
    # Spark does not hash maps, since equal ones may differ in order; ours are sorted where they are made.
    hashed = [
        F.to_json(name) if isinstance(judged.schema[name].dataType, MapType) else F.col(name)
        for name in content
    ]
    # Hundreds of bytes a row of where it came from go through the sort for rejected rows only.
    origin = {**{name: F.col(f"_{name}") for name in ORIGIN[:-1]}, "raw": _raw_row(kind)}
    # Whose events they are is said of good rows; a rejected one is its own source's.
    source = F.when(is_rejected(), F.col("_source")).otherwise(F.col("source")).alias("source")
    return judged.select(
        *[source if name == "source" else name for name in columns],
        "delivered_at",
        "row",
        F.xxhash64(*hashed).alias("row_hash"),
        "reject_reasons",
        *[F.when(is_rejected(), value).alias(name) for name, value in origin.items()],
    )


def _raw_row(kind: str) -> Column:
    """The delivered payload as JSON, or the line as it stood where it could not be split."""
    fields = [F.col(f"_{name}").alias(name) for name in FIELDS_BY_KIND[kind]]
    return F.coalesce("_malformed", F.to_json(F.struct(*fields)))


def is_rejected() -> Column:
    return F.size("reject_reasons") > 0


def good(rows: DataFrame) -> DataFrame:
    return rows.where(~is_rejected())


def quarantined(rows: DataFrame, *, kind: str) -> DataFrame:
    """One row per rejected delivery row, with its reasons and the row as it came."""
    return rows.where(is_rejected()).withColumn("kind", F.lit(kind)).select(*SILVER_QUARANTINE.columns)


def deduplicate(
    rows: DataFrame,
    kind: str,
    *,
    within_dates: bool = False,
    buckets: int = 1,
    repeats: Observation | None = None,
) -> DataFrame:
    """Each good row once: of its identity the one that stands (`Kind.precedence`); rejected rows all.

    The result is a function of the set of rows, whatever their order and partitions.

    rows: judged rows, as `cleaned` gives them.
    kind: of the rows, a key of KINDS; it says what an identity is.
    within_dates: looks for repeats among rows of one date only, enough where no identity has two dates. Rows
        of a dated table are then laid out by date, as its partitions want them.
    buckets: tasks that share a date, where rows are laid out by date.
    repeats: says how many rows another stands for (REPEATED), once the result is computed.
    """
    identity = KINDS[kind].identity
    dates = SILVER[kind].partition_by if within_dates else ()
    # A rejected row is itself only: its place in its file tells it from all others.
    apart = F.when(is_rejected(), F.concat_ws(":", "content_hash", "row"))
    keyed = rows.withColumns({"_apart": apart, "_slot": _slot(identity, dates)})
    together = [*dates]
    if dates and buckets > 1:
        keyed = keyed.withColumn("_bucket", F.pmod("_slot", F.lit(buckets)))
        together.append("_bucket")
    if together:
        keyed = keyed.repartition(*together)
    newest_first = Window.partitionBy("_slot", *together, *identity, "_apart").orderBy(
        *[F.expr(part).desc() for part in KINDS[kind].precedence()]
    )
    placed = keyed.withColumn("_place", F.row_number().over(newest_first))
    if repeats is not None:
        # Counted for themselves: as a remainder, rows that are lost would pass for repeats.
        placed = placed.observe(repeats, F.count_if(F.col("_place") > 1).alias(REPEATED))
    return placed.where("_place = 1").drop("_place", "_slot", "_apart", "_bucket")


def _slot(identity: Sequence[str], dates: Sequence[str]) -> Column:
    """A number to sort by first: equal for equal dates and identities, ascending by date.

    A sort holds the first key's eight bytes beside its pointers, and looks at the rows only where those are
    equal: with the date alone in front that is at nearly every step.
    """
    key = F.xxhash64(*identity)
    for name in dates:
        day = F.shiftleft(F.unix_date(name).cast("long"), _HASH_BITS)
        key = F.coalesce(day + F.shiftrightunsigned(key, 64 - _HASH_BITS), key)
    return key
