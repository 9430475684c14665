"""Bronze to silver: judged row by row, deduplicated, gated as a batch, then merged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial, reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.cleaning.batch import Batch, judged_batch
from recsys_spark.data.cleaning.finished import (
    DONE,
    count_unmatched,
    file_key,
    finished_files,
    known_items,
)
from recsys_spark.data.gates import judge as quality
from recsys_spark.data.gates import suites
from recsys_spark.data.gates.bounds import Check
from recsys_spark.data.gates.figures import DAY_ZERO, recorded, unknown_items
from recsys_spark.data.gates.past_nights import Past, pasts
from recsys_spark.data.kinds.rules import check_time_formats
from recsys_spark.data.snapshots import snapshot_loss
from recsys_spark.data.unsubscribes import unmatched_note
from recsys_spark.errors import InputError, QualityGateError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import delivered_files
from recsys_spark.lake.tables import (
    BRONZE,
    SILVER_INTERACTIONS,
    SILVER_QUARANTINE,
)
from recsys_spark.runtime.parallel import in_parallel


def run(job: Job) -> Summary:
    quality.preload()
    check_time_formats(job.spark, job.settings.sources)
    batches: list[Batch] = []
    try:
        steps: tuple[Callable[[], Any], ...] = (
            partial(_judge_new, job, batches),
            partial(_pasts, job),
            partial(_silver_dates, job),
        )
        _, past, in_silver = in_parallel(*steps)
        newest = _newest_event(job, batches, in_silver)
        started = time.monotonic()
        results = _gate(job, batches, newest, past)
        gate_seconds = time.monotonic() - started
        _merge(job, batches)
    finally:
        for batch in batches:
            batch.close()
    summary = _summary(batches, results)
    figures = {**summary.figures, ("gate_seconds", ""): gate_seconds}
    _mark(job, batches, figures)
    return replace(summary, figures=figures, is_recorded=bool(batches))


def _summary(batches: list[Batch], results: list[quality.QualityResult]) -> Summary:
    figures = {key: value for batch in batches for key, value in batch.counts.items()}
    for batch in batches:
        figures |= recorded(batch.kind, batch.figures)
    rows_in = int(sum(value for (metric, _), value in figures.items() if metric == "rows_in"))
    rows_out = int(sum(value for (metric, _), value in figures.items() if metric == "rows_good"))
    notes: tuple[str, ...] = () if batches else ("nothing new in bronze",)
    if results:
        passed = sum(result.is_success for result in results)
        notes = (*notes, f"{passed} of {len(results)} expectations met")
    notes += tuple(note for batch in batches if (note := unmatched_note(batch.figures)))
    return Summary(rows_in, rows_out, "silver.*", figures, notes)


def _judge_new(job: Job, batches: list[Batch]) -> None:
    """Add the new files' rows, by kind; also those of other kinds where one raises."""
    asked: tuple[Callable[[], Any], ...] = (partial(finished_files, job.lake), partial(_delivered_files, job))
    known, delivered = in_parallel(*asked)
    judgements = []
    for kind, table in BRONZE.items():
        files = {file: nights for file, nights in delivered.items() if file.startswith(f"{kind}:")}
        new = sorted(files.keys() - known)
        if new:
            bronze = job.read(table)
            if len(new) < len(files):
                # The nights that took them are partitions: no other is read.
                nights = sorted(set().union(*[files[file] for file in new]))
                is_new = F.concat_ws(":", F.lit(kind), "source", "content_hash").isin(new)
                bronze = bronze.where(F.col("ingest_date").isin(nights) & is_new)
            judgements.append(partial(_judge, job, kind, bronze, new, batches))
    in_parallel(*judgements)
    batches.sort(key=lambda batch: list(BRONZE).index(batch.kind))


def _judge(job: Job, kind: str, bronze: DataFrame, files: list[str], batches: list[Batch]) -> None:
    batches.append(judged_batch(job, kind, bronze, files))


def _delivered_files(job: Job) -> dict[str, set[date]]:
    """The files that bronze holds, and the nights that took them: one each, but for a lake mended by hand."""
    nights_of_file: dict[str, set[date]] = {}
    for file in delivered_files(job.lake):
        nights_of_file.setdefault(file_key(file), set()).add(file.ingest_date)
    return nights_of_file


def _pasts(job: Job) -> dict[str, Past]:
    nights = job.settings.quality.history_nights
    return pasts(job.lake, list(BRONZE), run_date=job.run_date, nights=nights, adds_up=True)


def _silver_dates(job: Job) -> tuple[date, date] | None:
    """The first and the last date of the events in silver."""
    first, last = job.read(SILVER_INTERACTIONS).agg(F.min("event_date"), F.max("event_date")).collect()[0]
    return None if first is None else (first, last)


def _newest_event(job: Job, batches: list[Batch], in_silver: tuple[date, date] | None) -> date:
    """The day of the newest event known, the batch's included.

    Raises InputError where no event is known on or before the run date.
    """
    bounds = [] if in_silver is None else [in_silver]
    for batch in batches:
        if batch.kind == "interactions" and "first_day" in batch.figures:
            days = (batch.figures["first_day"], batch.figures["last_day"])
            first, last = (DAY_ZERO + timedelta(days=int(day)) for day in days)
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
    return max(last for _, last in bounds)


def _is_stale(job: Job, newest: date) -> bool:
    return newest < job.run_date - timedelta(days=job.settings.quality.max_age_days)


def _gate(
    job: Job, batches: list[Batch], newest: date, past: Mapping[str, Past]
) -> list[quality.QualityResult]:
    """Judge the batch by Great Expectations; results are kept whatever the verdict."""
    if not batches and not _is_stale(job, newest):
        return []  # a rerun that takes nothing in leaves the pages of what was judged
    by_kind, thresholds = {batch.kind: batch for batch in batches}, job.settings.quality
    count_unmatched(job.lake, by_kind, campaigns=job.settings.campaigns.values())
    for batch in batches:
        loss = snapshot_loss(job.lake, job.settings, batch.kind, batch.files)
        if loss is not None:
            batch.figures["snapshot_loss"] = loss
    checks = [
        judge(by_kind[kind].figures, quality=thresholds, past=past[kind])
        for kind, judge in suites.SUITES.items()
        if kind in by_kind
    ]
    last_day = float((newest - DAY_ZERO).days)
    if events := by_kind.get("interactions"):
        checks.extend(_event_checks(job, events, by_kind.get("items"), past["interactions"], last_day))
    else:
        checks.append(suites.freshness_check(last_day, quality=thresholds, run_date=job.run_date))
    results = quality.judged(job, checks, stage="clean")
    if _is_stale(job, newest):
        raise QualityGateError(
            f"no data for {job.run_date}: the newest known event is of {newest}, older than "
            f"quality.max_age_days = {thresholds.max_age_days} allows "
            f"({quality.sentence([result for result in results if not result.is_success])}). "
            "Next: deliver the missing days, or choose an earlier --run-date."
        )
    quality.require_success(results)
    return results


def _event_checks(job: Job, events: Batch, items: Batch | None, past: Past, last_day: float) -> list[Check]:
    events.figures["unknown_items"] = unknown_items(events.good, known_items(job.lake, items))
    whole = suites.whole_check(
        {**events.figures, "last_day": last_day},
        quality=job.settings.quality,
        clean=job.settings.clean,
        run_date=job.run_date,
        past=past,
    )
    return [suites.interaction_check(events.figures), whole]


def _merge(job: Job, batches: list[Batch]) -> None:
    """Quarantine and silver, side by side; a crash before the mark repeats steps that change nothing."""
    rejected = [batch for batch in batches if batch.counts["rows_quarantined", batch.kind]]
    merging = [batch for batch in batches if batch.counts["rows_good", batch.kind]]
    in_parallel(*[partial(batch.merge, job) for batch in merging], partial(_quarantine, job, rejected))


def _quarantine(job: Job, batches: list[Batch]) -> None:
    """The rejected rows of all kinds, in one commit."""
    rows = [batch.rejected for batch in batches]
    if rows:
        job.merge(SILVER_QUARANTINE, reduce(DataFrame.unionByName, rows))


def _mark(job: Job, batches: list[Batch], figures: dict[tuple[str, str], float]) -> None:
    """Note which files are in silver, so that no later night looks at them again, and what was in them.

    In one commit: a night that ends here leaves the counts that later nights compare theirs with.
    """
    marks = {(DONE, file): 1.0 for batch in batches for file in batch.files}
    if marks:
        job.record("clean", figures | marks)
