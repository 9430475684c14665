"""Full deliveries: what a source with `snapshot = true` delivered last is all there is of it.

Silver keeps what was ever delivered. What a full delivery no longer has is withheld where silver is read as
of a day: from the delivery's date on, until another has it again. Nothing is stored for it, so the order in
which deliveries came is all the same; the ids of one delivery are read, from bronze.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import pairwise

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Settings
from recsys_spark.data.cleaning.finished import cleaned_files, file_key
from recsys_spark.data.kinds import KINDS
from recsys_spark.lake.runs import Delivered, delivered_files
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import BRONZE, OPS_METRICS, SILVER


@dataclass(frozen=True)
class Snapshot:
    """What a source delivered on one day (UTC): of each place the content that came there last."""

    source: str
    day: date
    files: tuple[Delivered, ...]


def versions_on(lake: Lake, settings: Settings, kind: str, day: date) -> DataFrame:
    """The rows of a table of silver that may hold on the day: without what a full delivery no longer has.

    A row is of the source whose delivery of it stands. That of a source without `snapshot` is never withheld.
    Before a source's first full delivery the first one holds.

    lake: that has silver and bronze.
    settings: whose sources say which deliveries are full.
    kind: items, users or audiences.
    day: as of which silver is read.
    """
    rows = lake.read(SILVER[kind])
    held = [
        max((one for one in snapshots if one.day <= day), default=snapshots[0], key=_day)
        for snapshots in _in_silver(lake, settings, kind).values()
    ]
    if not held:
        return rows
    thing = list(_thing(kind))
    present = _ids(lake, settings, kind, held).withColumn("_is_there", F.lit(True))
    named = [name for name, source in settings.sources.items() if source.kind == kind]
    # A table of an earlier version does not say whose its rows are; of one source they are that one's.
    whose = F.coalesce("source", F.lit(named[0])) if len(named) == 1 else F.col("source")
    is_whole = F.coalesce(F.col("_source").isin([one.source for one in held]), F.lit(False))
    joined = rows.withColumn("_source", whose).join(
        present.withColumnRenamed("source", "_source"), on=["_source", *thing], how="left"
    )
    return joined.where(~is_whole | F.col("_is_there")).select(*rows.columns)


def snapshot_loss(lake: Lake, settings: Settings, kind: str, files: Collection[str]) -> float | None:
    """The largest share of ids that a new full delivery lacks of those that the one before it has.

    None where no new delivery is full, or none has one before it.

    lake: whose bronze has all of them.
    settings: whose sources say which deliveries are full.
    kind: of the files.
    files: keys of the new ones, beside those that are in silver.
    """
    if not _full(settings, kind):
        return None
    shares = []
    for snapshots in _snapshots(lake, settings, kind, {*_known(lake), *files}).values():
        for before, after in pairwise(snapshots):
            if any(file_key(file) in files for file in after.files):
                shares.append(_loss(lake, settings, kind, before, after))
    return max(shares, default=None)


def _loss(lake: Lake, settings: Settings, kind: str, before: Snapshot, after: Snapshot) -> float:
    thing = list(_thing(kind))
    left = _ids(lake, settings, kind, [after]).select(*thing, F.lit(True).alias("_is_there"))
    both = _ids(lake, settings, kind, [before]).join(left, on=thing, how="left")
    counts = both.agg(F.count(F.lit(1)).alias("had"), F.count("_is_there").alias("has")).collect()[0]
    return 1.0 - counts["has"] / counts["had"] if counts["had"] else 0.0


def _thing(kind: str) -> Sequence[str]:
    """The columns of silver that name what has versions."""
    return [name for name in KINDS[kind].identity if name != "valid_from"]


def _ids(lake: Lake, settings: Settings, kind: str, snapshots: Iterable[Snapshot]) -> DataFrame:
    """(source, the ids) of these deliveries, once each, as silver writes them.

    Those of rejected rows too: a thing with a bad price is there.
    """
    columns, _ = KINDS[kind].typed(settings.clean, settings.sources)
    files = [file for one in snapshots for file in one.files]
    nights = sorted({file.ingest_date for file in files})
    is_meant = F.concat_ws(":", "source", "content_hash").isin(
        [f"{file.source}:{file.content_hash}" for file in files]
    )
    rows = lake.read(BRONZE[kind]).where(F.col("ingest_date").isin(nights) & is_meant)
    return rows.select("source", *[columns[name].alias(name) for name in _thing(kind)]).distinct()


def _in_silver(lake: Lake, settings: Settings, kind: str) -> Mapping[str, Sequence[Snapshot]]:
    """source -> its full deliveries that silver has, by day."""
    if not _full(settings, kind):
        return {}
    return _snapshots(lake, settings, kind, _known(lake))


def _snapshots(
    lake: Lake, settings: Settings, kind: str, files: Collection[str]
) -> Mapping[str, Sequence[Snapshot]]:
    """source -> its full deliveries among these files, by day."""
    full = _full(settings, kind)
    if not full:
        return {}
    newest: dict[tuple[str, date], dict[str, Delivered]] = {}
    for file in delivered_files(lake):
        if file.kind == kind and file.source in full and file_key(file) in files:
            places = newest.setdefault((file.source, _delivered_on(file)), {})
            places[file.file] = max(file, places.get(file.file, file), key=_time)
    found: dict[str, list[Snapshot]] = {}
    for (source, day), places in sorted(newest.items()):
        found.setdefault(source, []).append(Snapshot(source, day, tuple(places.values())))
    return found


def _full(settings: Settings, kind: str) -> set[str]:
    return {name for name, source in settings.sources.items() if source.kind == kind and source.snapshot}


def _known(lake: Lake) -> frozenset[str]:
    return _cleaned(lake, lake.state(OPS_METRICS))


@lru_cache(maxsize=2)
def _cleaned(lake: Lake, _state: str) -> frozenset[str]:
    return frozenset(cleaned_files(lake))


def _delivered_on(file: Delivered) -> date:
    return datetime.fromtimestamp(file.modified_ms / 1000, UTC).date()


def _time(file: Delivered) -> tuple[int, str]:
    return file.modified_ms, file.content_hash


def _day(snapshot: Snapshot) -> date:
    return snapshot.day
