"""Bronze to silver: judged row by row, deduplicated, gated as a batch, then merged."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data import quality
from recsys_spark.data.clean import NEWER, cleaned, deduplicate, good, quarantined
from recsys_spark.data.kinds import KINDS
from recsys_spark.errors import InputError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import (
    BRONZE,
    OPS_METRICS,
    OPS_QUALITY,
    SILVER,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
    SILVER_QUARANTINE,
)

_DONE = "cleaned_file"


@dataclass(frozen=True)
class Batch:
    """The rows of one kind that silver has not seen: all of them judged, and the good ones once each."""

    kind: str
    rows: DataFrame
    good: DataFrame
    files: list[str]
    counts: dict[tuple[str, str], float]


def run(job: Job) -> Summary:
    with ExitStack() as held:
        batches = [batch for kind in BRONZE if (batch := _batch(job, kind, held)) is not None]
        _require_events(job, batches)
        results = _gate(job, batches)
        for batch in batches:
            _merge(job, batch)
    figures = {key: value for batch in batches for key, value in batch.counts.items()}
    rows_in = int(sum(value for (metric, _), value in figures.items() if metric == "rows_in"))
    rows_out = int(sum(value for (metric, _), value in figures.items() if metric == "rows_good"))
    notes = () if batches else ("nothing new in bronze",)
    passed = sum(result.is_success for result in results)
    if results:
        notes = (*notes, f"{passed} of {len(results)} expectations met")
    return Summary(rows_in, rows_out, "silver.*", figures, notes)


def _batch(job: Job, kind: str, held: ExitStack) -> Batch | None:
    """The new files' rows, or None; released when `held` closes."""
    done = (
        job.read(OPS_METRICS).where(F.col("metric") == _DONE).select(F.col("label").alias("file")).distinct()
    )
    bronze = job.read(BRONZE[kind])
    file = F.concat_ws(":", F.lit(kind), "source", "content_hash")
    new = (
        bronze.select("source", "content_hash")
        .distinct()
        .select(file.alias("file"))
        .join(done, "file", "left_anti")
    )
    files = sorted(row["file"] for row in new.collect())
    if not files:
        return None
    batch = bronze.where(file.isin(files))
    judged = cleaned(batch, kind, settings=job.settings.clean, sources=job.settings.sources)
    # Read by the gate, the counts, the quarantine and the merge: kept once rather than parsed four times.
    rows = judged.persist()
    held.callback(rows.unpersist)
    unique = deduplicate(good(rows), key=KINDS[kind].identity).select(*SILVER[kind].columns).persist()
    held.callback(unique.unpersist)
    return Batch(kind, rows, unique, files, _counts(kind, rows, unique))


def _counts(kind: str, rows: DataFrame, unique: DataFrame) -> dict[tuple[str, str], float]:
    reasons = rows.select(F.explode_outer(F.coalesce("reject_reasons", F.array())).alias("reason"), "row")
    total, rejected = rows.agg(
        F.count(F.lit(1)), F.count(F.when(F.size("reject_reasons") > 0, F.lit(1)))
    ).collect()[0]
    kept = unique.count()
    counts: dict[tuple[str, str], float] = {
        ("rows_in", kind): total,
        ("rows_good", kind): kept,
        ("rows_quarantined", kind): rejected,
        ("rows_duplicate", kind): total - rejected - kept,
    }
    if rejected:
        for row in reasons.where("reason IS NOT NULL").groupBy("reason").count().collect():
            counts["reject_reason", f"{kind}:{row['reason']}"] = row["count"]
    return counts


def _require_events(job: Job, batches: list[Batch]) -> None:
    """Raise InputError where no event is known on or before the run date."""
    frames = [batch.good.select("event_date") for batch in batches if batch.kind == "interactions"]
    frames.append(job.read(SILVER_INTERACTIONS).select("event_date"))
    bounds = []
    for frame in frames:
        first, last = frame.agg(F.min("event_date"), F.max("event_date")).collect()[0]
        if first is not None:
            bounds.append((first, last))
    if not bounds:
        raise InputError(
            "no good interaction in any delivery. Next: recsys quarantine shows why rows were rejected."
        )
    first = min(first for first, _ in bounds)
    if first > job.run_date:
        raise InputError(
            f"no events on or before {job.run_date}: the first known event is of {first}. "
            f"Expected a --run-date from {first} on."
        )
    _require_fresh(job, max(last for _, last in bounds))


def _require_fresh(job: Job, last: date) -> None:
    oldest = job.run_date - timedelta(days=job.settings.quality.max_age_days)
    if last < oldest:
        raise InputError(
            f"no data for {job.run_date}: the newest known event is of {last}, older than "
            f"quality.max_age_days = {job.settings.quality.max_age_days} allows. "
            "Next: deliver the missing days, or choose an earlier --run-date."
        )


def _gate(job: Job, batches: list[Batch]) -> list[quality.QualityResult]:
    """Judge the batch by Great Expectations; results are kept whatever the verdict."""
    by_kind = {batch.kind: batch for batch in batches}
    thresholds = job.settings.quality
    checks = []
    if "items" in by_kind:
        checks.append(quality.item_check(by_kind["items"].good, quality=thresholds))
    if "interactions" in by_kind:
        events = by_kind["interactions"]
        items = job.read(SILVER_ITEMS).select("item_id")
        if "items" in by_kind:
            items = items.unionByName(by_kind["items"].good.select("item_id"))
        profile = quality.batch_profile(events.rows, events.good, items, run_date=job.run_date)
        checks.append(quality.interaction_check(events.good, quality=thresholds, clean=job.settings.clean))
        checks.append(quality.profile_check(profile, quality=thresholds))
    if not checks:
        return []
    results = quality.validate(checks, docs=job.output / f"{job.run_date}" / "data_docs")
    _keep(job, results)
    quality.require_success(results)
    return results


def _keep(job: Job, results: list[quality.QualityResult]) -> None:
    now = datetime.now(UTC)
    opened = job.run
    rows = [
        (
            opened.run_id,
            job.run_date,
            result.suite,
            result.expectation,
            result.column,
            result.observed,
            result.allowed,
            result.is_success,
            now,
        )
        for result in results
    ]
    job.append(OPS_QUALITY, job.spark.createDataFrame(rows, OPS_QUALITY.schema).coalesce(1))


def _merge(job: Job, batch: Batch) -> None:
    """Quarantine, then silver, then the mark: a crash in between repeats steps that change nothing."""
    rejected = quarantined(batch.rows, kind=batch.kind)
    if batch.counts["rows_quarantined", batch.kind]:
        job.merge(SILVER_QUARANTINE, rejected)
    table = SILVER[batch.kind]
    rows = batch.good
    touched = ""
    if batch.kind == "interactions":
        rows = rows.repartition("event_date")
        first, last = rows.agg(F.min("event_date"), F.max("event_date")).collect()[0]
        # Only the batch's own dates are read; a list of dates prunes as well as a range when it is short.
        touched = f"t.event_date BETWEEN '{first}' AND '{last}'"
    if batch.counts["rows_good", batch.kind]:
        job.merge(table, rows, newer=NEWER, touched=touched)
    now, opened = datetime.now(UTC), job.run
    marks = [(opened.run_id, job.run_date, "clean", _DONE, file, 1.0, now) for file in batch.files]
    job.append(OPS_METRICS, job.spark.createDataFrame(marks, OPS_METRICS.schema).coalesce(1))
