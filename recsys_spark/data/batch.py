"""A batch: the rows of one kind that silver has not seen, judged one by one, once each, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from recsys_spark.data.clean import (
    ORIGIN,
    REPEATED,
    cleaned,
    deduplicate,
    good,
    is_rejected,
    quarantined,
)
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.merge import merge_batch
from recsys_spark.data.profile import (
    REJECT,
    Figures,
    added_up,
    counted,
    counted_while_kept,
    duplicate_keys,
    good_figures,
    reason_figures,
)
from recsys_spark.data.repeated import KEY, identity_hash, repeated_keys
from recsys_spark.errors import RecsysError
from recsys_spark.lake.job import Job
from recsys_spark.lake.staged import PART, Partitions, Staged, stage, take_in
from recsys_spark.lake.tables import SILVER
from recsys_spark.lake.together import together

_ROWS_TOGETHER = 2_000_000  # of one date are one task's, where a batch is one date
_ROWS_WRITTEN = 600_000  # are one task's, where a batch is written by dates
_MOST_TWINS = 0.3  # of a batch; where more rows than that have a twin, all are sorted
_APART = "apart"


@dataclass(frozen=True)
class Batch:
    """The rows of one kind that silver has not seen: the good ones once each, and the rejected ones.

    rows: all of them, or, of a large batch, those that had to wait for another or were rejected; the others
    are in `staged`, each part a date. counts: rows_in, rows_good, rows_quarantined, rows_duplicate and per
    reason; figures: the profile.
    """

    kind: str
    rows: DataFrame
    files: list[str]
    counts: dict[tuple[str, str], float]
    figures: Figures
    staged: Staged | None = None

    @cached_property
    def good(self) -> DataFrame:
        """The rows for silver, in its columns."""
        columns = list(SILVER[self.kind].columns)
        waited = good(self.rows).select(*columns)
        if self.staged is None:
            return waited
        return waited.unionByName(self.staged.read().where(F.col(PART).isNotNull()).select(*columns))

    @property
    def rejected(self) -> DataFrame:
        return quarantined(self.rows, kind=self.kind)

    def merge(self, job: Job) -> None:
        """The good rows into silver, in one commit."""
        table, identity = SILVER[self.kind], KINDS[self.kind].identity
        if self.staged is None:
            merge_batch(job.lake, table, self.good, identity=identity)
        else:
            merge_batch(job.lake, table, self.good, identity=identity, add=self._take_in)

    def _take_in(self) -> None:
        """The files that are written, and those of the rows that waited, as they are."""
        if self.staged is None:
            raise ValueError(f"{self.kind}: nothing is staged")
        table = self.staged.table
        dated = good(self.rows).select(*table.columns, F.col("event_date").alias(PART))
        waited = stage(self.staged.lake, table, dated.repartition(PART))
        take_in((self.staged, _dates(self.staged)), (waited, _dates(waited)))

    def discard(self) -> None:
        """Delete what was written for a batch and is not silver's now."""
        if self.staged is not None:
            self.staged.discard()


def judged_batch(job: Job, kind: str, bronze: DataFrame, files: list[str]) -> Batch:
    """Bronze rows judged, deduplicated and counted."""
    judged = cleaned(bronze, kind, settings=job.settings.clean, sources=job.settings.sources)
    rows_in = bronze.count()
    found = None
    if SILVER[kind].partition_by and rows_in >= job.settings.lake.large_batch_rows:
        found = _written(job, kind, bronze, judged, rows_in)
    if found is None:
        found = _sorted(job, kind, judged, rows_in)
    reasons = {name: found.figures.pop(name) for name in list(found.figures) if name.startswith(REJECT)}
    found.figures["rows_in"] = float(rows_in)
    with found.discarded_on_error():
        _require_conserved(kind, found.figures, found.repeated)
    counts = _counts(kind, found.figures, reasons, found.repeated)
    return Batch(kind, found.rows, files, counts, found.figures, found.staged)


@dataclass(frozen=True)
class _Found:
    """What became of a batch's rows; repeated: those that another stands for."""

    rows: DataFrame
    figures: Figures
    repeated: float
    staged: Staged | None = None

    @contextmanager
    def discarded_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self.staged is not None:
                self.staged.discard()
            raise


def _sorted(job: Job, kind: str, judged: DataFrame, rows_in: int) -> _Found:
    """One pass parses, judges, sorts by date, counts and writes to local disk; all else reads that."""
    expressions, repeats = _figures(job, kind), Observation()
    buckets = 1
    if job.lake.exists(SILVER[kind]):  # a first delivery has many dates, a night's one
        buckets = min(-(-rows_in // _ROWS_TOGETHER), job.spark.sparkContext.defaultParallelism)
    once = deduplicate(judged, kind, within_dates=True, buckets=buckets, repeats=repeats)
    rows, figures = counted_while_kept(once, expressions, StorageLevel.DISK_ONLY)
    repeated = float(repeats.get[REPEATED])
    again = duplicate_keys(good(rows), KINDS[kind].identity) if SILVER[kind].partition_by else 0.0
    if again:
        # An event delivered again with another date: rare, and then a second pass over all rows.
        repeats = Observation()
        once = deduplicate(rows, kind, repeats=repeats)
        rows, figures = counted_while_kept(once, expressions, StorageLevel.DISK_ONLY)
        repeated += float(repeats.get[REPEATED])
        again = duplicate_keys(good(rows), KINDS[kind].identity)
    return _Found(rows, figures | {"duplicate_keys": again}, repeated)


def _written(job: Job, kind: str, bronze: DataFrame, judged: DataFrame, rows_in: int) -> _Found | None:
    """Rows that need not wait for another are written at once, by dates; the rest is sorted as usual.

    None where so many rows have a twin that nothing is won.
    """
    settings = job.settings
    twins = repeated_keys(bronze, kind, rows=rows_in, clean=settings.clean, sources=settings.sources)
    if twins.count() > rows_in * _MOST_TWINS / 2:
        return None
    table = SILVER[kind]
    staged = stage(job.lake, table, _by_date(judged, kind, twins, -(-rows_in // _ROWS_WRITTEN)))
    found = _Found(staged.read(), {}, 0.0, staged)
    with found.discarded_on_error():
        written = staged.read().where(F.col(PART).isNotNull())
        waiting, repeats = _waiting(staged.read(), kind), Observation()
        once = deduplicate(waiting, kind, repeats=repeats)
        steps: tuple[Callable[[], Any], ...] = (
            partial(counted, written, good_figures(kind, clean=settings.clean, among=F.lit(True))),
            partial(counted_while_kept, once, _figures(job, kind), StorageLevel.DISK_ONLY),
        )
        at_once, (rows, figures) = together(*steps)
        # Nothing that was written has a twin, by hashes of identities; of the rest each stands once.
        figures = added_up(at_once, figures) | {"duplicate_keys": 0.0}
        return _Found(rows, figures, float(repeats.get[REPEATED]), staged)


def _by_date(judged: DataFrame, kind: str, twins: DataFrame, partitions: int) -> DataFrame:
    """The judged rows with PART, their date, or null for those that have to wait or are rejected."""
    marked = judged.withColumn(KEY, identity_hash(kind)).join(
        F.broadcast(twins.withColumn("_has_twin", F.lit(True))), on=KEY, how="left"
    )
    waits = is_rejected() | F.col("_has_twin").isNotNull()
    apart = F.when(is_rejected(), F.struct("reject_reasons", *ORIGIN)).alias(_APART)
    rows = marked.select(*SILVER[kind].columns, apart, F.when(~waits, F.col("event_date")).alias(PART))
    # Rows that wait are spread over all tasks, and those of a date are one task's: days that follow each
    # other go round the tasks, where hashes of sixty days would leave one of them twice as many as another.
    number = F.coalesce(F.unix_date(PART).cast("long"), F.col("row_hash"))
    return rows.repartitionById(partitions, F.pmod(number, F.lit(partitions)).cast("int"))


def _waiting(rows: DataFrame, kind: str) -> DataFrame:
    """The rows without a date of their own, as `cleaned` gives them."""
    reasons = F.coalesce(f"{_APART}.reject_reasons", F.array().cast("array<string>"))
    return rows.where(F.col(PART).isNull()).select(
        *SILVER[kind].columns, reasons.alias("reject_reasons"), *[f"{_APART}.{name}" for name in ORIGIN]
    )


def _dates(staged: Staged) -> Partitions:
    return {part: {"event_date": date.fromisoformat(part)} for part in staged.rows if part is not None}


def _require_conserved(kind: str, figures: Figures, repeated: float) -> None:
    """Raise RecsysError unless every row of bronze is good, quarantined or a duplicate, each counted."""
    found = figures["rows"] + figures["rejected"] + repeated
    if found != figures["rows_in"]:
        what = "lost" if found < figures["rows_in"] else "made up or read twice"
        raise RecsysError(
            f"{kind}: {figures['rows']:,.0f} good, {figures['rejected']:,.0f} rejected and {repeated:,.0f} "
            f"duplicate rows of {figures['rows_in']:,.0f} in bronze: rows were {what}. Nothing was merged. "
            "Next: run the stage again; if it says the same, keep the lake and report it."
        )


def _figures(job: Job, kind: str) -> dict[str, Column]:
    """What is counted of judged rows: the good ones' profile, and how many broke which rule."""
    clean = job.settings.clean
    _, broken = KINDS[kind].typed(clean, job.settings.sources)
    return {**good_figures(kind, clean=clean, among=~is_rejected()), **reason_figures(broken)}


def _counts(kind: str, figures: Figures, reasons: Figures, repeated: float) -> dict[tuple[str, str], float]:
    return {
        ("rows_in", kind): figures["rows_in"],
        ("rows_good", kind): figures["rows"],
        ("rows_quarantined", kind): figures["rejected"],
        ("rows_duplicate", kind): repeated,
        **{
            ("reject_reason", f"{kind}:{name.removeprefix(REJECT)}"): rows
            for name, rows in reasons.items()
            if rows
        },
    }
