"""A batch: the rows of one kind that silver has not seen, judged one by one, once each, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial, reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from recsys_spark.data.cleaning.clean import (
    ORIGIN,
    REPEATED,
    cleaned,
    deduplicate,
    good,
    is_rejected,
    quarantined,
)
from recsys_spark.data.cleaning.merge import merge_batch
from recsys_spark.data.cleaning.repeated import KEY, identity_hash, repeated_keys
from recsys_spark.data.gates.figures import (
    REJECT,
    Figures,
    added_up,
    aliased,
    checkpointed_and_counted,
    counted,
    duplicate_keys,
    floats,
    good_figures,
    reason_figures,
)
from recsys_spark.data.kinds import KINDS
from recsys_spark.errors import RecsysError
from recsys_spark.lake.job import Job
from recsys_spark.lake.staged import PART, Partitions, Staged, take_in, write_beside
from recsys_spark.lake.tables import SILVER
from recsys_spark.runtime.parallel import in_parallel

_ROWS_TOGETHER = 2_000_000  # of one date are one task's, where a batch is one date
_ROWS_WRITTEN = 160_000  # are one task's, where a batch is written by dates
# Where a larger share of a batch's rows have a twin, all are sorted ...
MOST_TWINS = 0.3
_TWINS_SENT = 5_000_000  # ... and where more identities have one: they are sent to each task
_APART = "apart"


@dataclass(frozen=True)
class Batch:
    """The rows of one kind that silver has not seen: the good ones once each, and the rejected ones.

    rows: all of them; of a large batch the rejected ones, its good ones being in `staged`, each part a date.
    counts: rows_in, rows_good, rows_quarantined, rows_duplicate and per reason. figures: what judges it.
    """

    kind: str
    rows: DataFrame
    files: list[str]
    counts: dict[tuple[str, str], float]
    figures: Figures
    staged: tuple[Staged, ...] = ()

    @cached_property
    def good(self) -> DataFrame:
        """The rows for silver, in its columns."""
        columns = list(SILVER[self.kind].columns)
        if not self.staged:
            return good(self.rows).select(*columns)
        dated = [part.read().where(F.col(PART).isNotNull()).select(*columns) for part in self.staged]
        return reduce(DataFrame.unionByName, dated)

    @property
    def rejected(self) -> DataFrame:
        return quarantined(self.rows, kind=self.kind)

    def merge(self, job: Job) -> None:
        """The good rows into silver, in one commit: a large batch's as the files that are written."""
        parts = [(part, _dates(part)) for part in self.staged]
        merge_batch(
            job.lake,
            self.kind,
            self.good,
            same_events=job.settings.same_events,
            add=partial(take_in, *parts) if parts else None,
        )

    def close(self) -> None:
        """Delete what was written for a batch and is not silver's now."""
        for part in self.staged:
            part.close()


def judged_batch(job: Job, kind: str, bronze: DataFrame, files: list[str]) -> Batch:
    """Bronze rows judged, deduplicated and counted."""
    judged = cleaned(bronze, kind, settings=job.settings.clean, sources=job.settings.sources)
    rows_in = bronze.count()
    sifted = None
    is_large = rows_in >= job.settings.lake.large_batch_rows
    if SILVER[kind].partition_by and is_large and job.lake.is_as_declared(SILVER[kind]):
        sifted = _written(job, kind, bronze, judged, rows_in)
    if sifted is None:
        sifted = _sorted(job, kind, judged, rows_in)
    reasons = {name: sifted.figures.pop(name) for name in list(sifted.figures) if name.startswith(REJECT)}
    sifted.figures["rows_in"] = float(rows_in)
    with _closed_on_error(sifted.staged):
        _require_conserved(kind, sifted.figures, sifted.repeated)
    counts = _counts(kind, sifted.figures, reasons, sifted.repeated)
    return Batch(kind, sifted.rows, files, counts, sifted.figures, sifted.staged)


@dataclass(frozen=True)
class Spread:
    """Over how many tasks rows are spread to be written, how many of those share a date, and how many tasks
    beside them take the rows of none."""

    dated: int
    buckets: int
    dateless: int

    @classmethod
    def of(cls, rows: int, *, cores: int, buckets: int) -> Spread:
        """For so many rows: a task has few dates, best one.

        Rows of several come in turn, and each of its files has dictionaries that push the others' out of the
        cores' caches: at four dates a task writing took a fifth longer.
        """
        each = (_ROWS_WRITTEN, _ROWS_TOGETHER)
        dated, dateless = (cores * max(1, -(-rows // (cores * of_task))) for of_task in each)
        return cls(dated, buckets, dateless)

    def by_date(self, rows: DataFrame) -> DataFrame:
        """Rows of one date together, and those of none by themselves.

        Days that follow each other go round the tasks, where hashes of sixty days would leave one of the
        tasks twice as many as another.
        """
        bucket = F.pmod("row_hash", F.lit(self.buckets))
        place = F.pmod(F.unix_date(PART) * F.lit(self.buckets) + bucket, F.lit(self.dated))
        by_itself = F.pmod("row_hash", F.lit(self.dateless))
        task = F.coalesce(place + F.lit(self.dateless), by_itself).cast("int")
        return rows.repartitionById(self.dated + self.dateless, task)


@dataclass(frozen=True)
class _Sifted:
    """What became of a batch's rows; repeated: those that another stands for."""

    rows: DataFrame
    figures: Figures
    repeated: float
    staged: tuple[Staged, ...] = ()


@contextmanager
def _closed_on_error(staged: Sequence[Staged]) -> Iterator[None]:
    """`staged` as it is by then."""
    try:
        yield
    except BaseException:
        for part in staged:
            part.close()
        raise


def _buckets(job: Job, kind: str, rows_in: int) -> int:
    """How many tasks share a date: one of a first delivery, which has many dates; more of a night's one."""
    if not job.lake.exists(SILVER[kind]):
        return 1
    return min(-(-rows_in // _ROWS_TOGETHER), job.spark.sparkContext.defaultParallelism)


def _sorted(job: Job, kind: str, judged: DataFrame, rows_in: int) -> _Sifted:
    """One pass parses, judges, sorts by date, counts and writes to local disk; all else reads that."""
    expressions, repeats = _figures(job, kind), Observation()
    buckets = _buckets(job, kind, rows_in)
    once = deduplicate(judged, kind, within_dates=True, buckets=buckets, repeats=repeats)
    rows, figures = checkpointed_and_counted(once, expressions, StorageLevel.DISK_ONLY)
    repeated = float(repeats.get[REPEATED])
    again = duplicate_keys(good(rows), KINDS[kind].identity) if SILVER[kind].partition_by else 0.0
    if again:
        # An event delivered again with another date: rare, and then a second pass over all rows.
        repeats = Observation()
        once = deduplicate(rows, kind, repeats=repeats)
        rows, figures = checkpointed_and_counted(once, expressions, StorageLevel.DISK_ONLY)
        repeated += float(repeats.get[REPEATED])
        again = duplicate_keys(good(rows), KINDS[kind].identity)
    return _Sifted(rows, figures | {"duplicate_keys": again}, repeated)


def _written(job: Job, kind: str, bronze: DataFrame, judged: DataFrame, rows_in: int) -> _Sifted | None:
    """Rows that need not wait for another are written at once, by dates; then of twins the latest.

    None where so many rows have a twin that nothing is won.
    """
    settings, table = job.settings, SILVER[kind]
    twins = repeated_keys(bronze, kind, rows=rows_in, clean=settings.clean, sources=settings.sources)
    if twins.count() > min(rows_in * MOST_TWINS / 2, _TWINS_SENT):
        return None
    cores = job.spark.sparkContext.defaultParallelism
    buckets = _buckets(job, kind, rows_in)
    spread = Spread.of(rows_in, cores=cores, buckets=buckets)
    staged = [write_beside(job.lake, table, _alone(judged, kind, twins, spread))]
    with _closed_on_error(staged):
        alone = staged[0].read().where(F.col(PART).isNotNull())
        waiting = _apart(staged[0], kind)
        rest_spread = Spread.of(staged[0].rows.get(None, 0), cores=cores, buckets=buckets)
        steps: tuple[Callable[[], Any], ...] = (
            partial(counted, alone, good_figures(kind, clean=settings.clean, among=F.lit(True))),
            partial(_latest_written, job, kind, waiting, rest_spread, staged),
        )
        figures, rest = in_parallel(*steps)
        # What stands alone has no twin by hashes of identities; of the rest each stands once.
        figures = added_up(figures, rest.figures) | {"duplicate_keys": 0.0}
        dated = sum(rows for part in staged for date_, rows in part.rows.items() if date_ is not None)
        if dated != figures["rows"]:
            raise RecsysError(
                f"{kind}: {figures['rows']:,.0f} good rows, {dated:,} of them written by dates."
            )
    return _Sifted(rest.rows, figures, rest.repeated, tuple(staged))


def _latest_written(job: Job, kind: str, waiting: DataFrame, spread: Spread, staged: list[Staged]) -> _Sifted:
    """The latest of each identity, written by dates, and the rejected rows: in `staged` from then on."""
    repeats, figures = Observation(), Observation()
    once = deduplicate(waiting, kind, repeats=repeats).observe(figures, *aliased(_figures(job, kind)))
    written = write_beside(job.lake, SILVER[kind], _by_date(once, kind, spread, apart=is_rejected()))
    staged.append(written)
    return _Sifted(_apart(written, kind), floats(figures.get), float(repeats.get[REPEATED]))


def _alone(judged: DataFrame, kind: str, twins: DataFrame, spread: Spread) -> DataFrame:
    """The judged rows with PART, their date, or null for those that have to wait or are rejected."""
    marked = judged.withColumn(KEY, identity_hash(kind)).join(
        F.broadcast(twins.withColumn("_has_twin", F.lit(True))), on=KEY, how="left"
    )
    return _by_date(marked, kind, spread, apart=is_rejected() | F.col("_has_twin").isNotNull())


def _by_date(rows: DataFrame, kind: str, spread: Spread, *, apart: Column) -> DataFrame:
    """Silver's columns with PART, the date, or null where `apart`.

    Where a rejected row came from and why it was rejected is in one column, which good rows do not have.
    """
    origin = F.when(is_rejected(), F.struct("reject_reasons", *ORIGIN)).alias(_APART)
    part = F.when(~apart, F.col("event_date")).alias(PART)
    return spread.by_date(rows.select(*SILVER[kind].columns, origin, part))


def _apart(staged: Staged, kind: str) -> DataFrame:
    """The rows that were written without a date of their own, as `cleaned` gives them."""
    reasons = F.coalesce(f"{_APART}.reject_reasons", F.array().cast("array<string>"))
    origin = [f"{_APART}.{name}" for name in ORIGIN]
    rows = staged.read().where(F.col(PART).isNull())
    return rows.select(*SILVER[kind].columns, reasons.alias("reject_reasons"), *origin)


def _dates(staged: Staged) -> Partitions:
    return {part: {"event_date": date.fromisoformat(part)} for part in staged.rows if part is not None}


def _require_conserved(kind: str, figures: Figures, repeated: float) -> None:
    """Raise RecsysError unless every row of bronze is good, quarantined or a duplicate, each counted."""
    accounted = figures["rows"] + figures["rejected"] + repeated
    if accounted != figures["rows_in"]:
        what = "lost" if accounted < figures["rows_in"] else "made up or read twice"
        raise RecsysError(
            f"{kind}: {figures['rows']:,.0f} good, {figures['rejected']:,.0f} rejected and {repeated:,.0f} "
            f"duplicate rows of {figures['rows_in']:,.0f} in bronze: rows were {what}. Nothing was merged. "
            "Next: run the stage again; if it says the same, keep the lake and report it."
        )


def _figures(job: Job, kind: str) -> dict[str, Column]:
    """What is counted of judged rows: the good ones' figures, and how many broke which rule."""
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
