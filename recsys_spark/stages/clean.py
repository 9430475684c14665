"""Bronze to silver: judged row by row, deduplicated, gated as a batch, then merged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial, reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from recsys_spark.data import expectations, quality
from recsys_spark.data.bounds import Check
from recsys_spark.data.clean import REPEATED, cleaned, deduplicate, good, is_rejected, quarantined
from recsys_spark.data.history import Past, pasts
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.merge import merge_batch
from recsys_spark.data.profile import (
    DAY_ZERO,
    REJECT,
    Figures,
    counted_while_kept,
    duplicate_keys,
    good_figures,
    reason_figures,
    recorded,
    unknown_items,
)
from recsys_spark.errors import InputError, QualityGateError, RecsysError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import Delivered, delivered_files
from recsys_spark.lake.tables import (
    BRONZE,
    OPS_METRICS,
    SILVER,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
    SILVER_QUARANTINE,
)
from recsys_spark.lake.together import together

# In ops.metrics, labelled `kind:source:content hash`: what is in silver, and what is never to be.
_DONE, DISCARDED = "cleaned_file", "discarded_file"
_ROWS_TOGETHER = 2_000_000  # of one date are one task's, where a batch is one date


@dataclass(frozen=True)
class Batch:
    """The rows of one kind that silver has not seen: the good ones once each, and the rejected ones.

    counts: rows_in, rows_good, rows_quarantined, rows_duplicate and per reason; figures: the profile.
    """

    kind: str
    rows: DataFrame
    files: list[str]
    counts: dict[tuple[str, str], float]
    figures: Figures

    @property
    def good(self) -> DataFrame:
        return good(self.rows).select(*SILVER[self.kind].columns)


def run(job: Job) -> Summary:
    quality.preload()
    batches = _new_batches(job)
    newest = _newest_event(job, batches)
    started = time.monotonic()
    results = _gate(job, batches, newest)
    gate_seconds = time.monotonic() - started
    _merge(job, batches)
    told = _summary(batches, results)
    figures = {**told.figures, ("gate_seconds", ""): gate_seconds}
    _mark(job, batches, figures)
    return replace(told, figures=figures, is_recorded=bool(batches))


def _summary(batches: list[Batch], results: list[quality.QualityResult]) -> Summary:
    figures = {key: value for batch in batches for key, value in batch.counts.items()}
    for batch in batches:
        figures |= recorded(batch.kind, batch.figures)
    rows_in = int(sum(value for (metric, _), value in figures.items() if metric == "rows_in"))
    rows_out = int(sum(value for (metric, _), value in figures.items() if metric == "rows_good"))
    notes = () if batches else ("nothing new in bronze",)
    if results:
        passed = sum(result.is_success for result in results)
        notes = (*notes, f"{passed} of {len(results)} expectations met")
    return Summary(rows_in, rows_out, "silver.*", figures, notes)


def _new_batches(job: Job) -> list[Batch]:
    """The new files' rows, by kind."""
    asked: tuple[Callable[[], Any], ...] = (partial(finished_files, job), partial(_delivered_files, job))
    known, delivered = together(*asked)
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
            judgements.append(partial(judged_batch, job, kind, bronze, new))
    return together(*judgements)


def finished_files(job: Job) -> set[str]:
    """The files that `clean` does not look at again."""
    done = job.read(OPS_METRICS).where(F.col("metric").isin(_DONE, DISCARDED)).select("label").distinct()
    return {row["label"] for row in done.collect()}


def _delivered_files(job: Job) -> dict[str, set[date]]:
    """The files that bronze holds, and the nights that took them: one each, but for a lake mended by hand."""
    found: dict[str, set[date]] = {}
    for file in delivered_files(job.lake):
        found.setdefault(file_key(file), set()).add(file.ingest_date)
    return found


def file_key(file: Delivered) -> str:
    return f"{file.kind}:{file.source}:{file.content_hash}"


def judged_batch(job: Job, kind: str, bronze: DataFrame, files: list[str]) -> Batch:
    """Bronze rows judged, deduplicated and counted.

    One pass parses, judges, sorts by date, counts and writes to local disk; all that follows reads that.
    """
    judged = cleaned(bronze, kind, settings=job.settings.clean, sources=job.settings.sources)
    expressions, repeats = _figures(job, kind), Observation()
    rows_in = bronze.count()
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
    reasons = {name: figures.pop(name) for name in list(figures) if name.startswith(REJECT)}
    figures |= {"duplicate_keys": again, "rows_in": float(rows_in)}
    _require_conserved(kind, figures, repeated)
    return Batch(kind, rows, files, _counts(kind, figures, reasons, repeated), figures)


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


def _newest_event(job: Job, batches: list[Batch]) -> date:
    """The day of the newest event known, the batch's included.

    Raises InputError where no event is known on or before the run date.
    """
    bounds = []
    for batch in batches:
        if batch.kind == "interactions" and "first_day" in batch.figures:
            days = (batch.figures["first_day"], batch.figures["last_day"])
            bounds.append(tuple(DAY_ZERO + timedelta(days=int(day)) for day in days))
    dates = job.read(SILVER_INTERACTIONS).agg(F.min("event_date"), F.max("event_date")).collect()[0]
    if dates[0] is not None:
        bounds.append((dates[0], dates[1]))
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


def _gate(job: Job, batches: list[Batch], newest: date) -> list[quality.QualityResult]:
    """Judge the batch by Great Expectations; results are kept whatever the verdict."""
    if not batches and not _is_stale(job, newest):
        return []  # a rerun that takes nothing in leaves the pages of what was judged
    by_kind, thresholds = {batch.kind: batch for batch in batches}, job.settings.quality
    past = pasts(
        job.lake, list(by_kind), run_date=job.run_date, nights=thresholds.history_nights, adds_up=True
    )
    checks = [
        judge(by_kind[kind].figures, quality=thresholds, past=past[kind])
        for kind, judge in expectations.SUITES.items()
        if kind in by_kind
    ]
    last_day = float((newest - DAY_ZERO).days)
    if events := by_kind.get("interactions"):
        checks.extend(_event_checks(job, events, by_kind.get("items"), past["interactions"], last_day))
    else:
        checks.append(expectations.freshness_check(last_day, quality=thresholds, run_date=job.run_date))
    results = quality.judged(job, checks, stage="clean")
    if _is_stale(job, newest):
        raise QualityGateError(
            f"no data for {job.run_date}: the newest known event is of {newest}, older than "
            f"quality.max_age_days = {thresholds.max_age_days} allows "
            f"({quality.told([result for result in results if not result.is_success])}). "
            "Next: deliver the missing days, or choose an earlier --run-date."
        )
    quality.require_success(results)
    return results


def _event_checks(job: Job, events: Batch, items: Batch | None, past: Past, last_day: float) -> list[Check]:
    events.figures["unknown_items"] = unknown_items(events.good, known_items(job, items))
    profile = expectations.profile_check(
        {**events.figures, "last_day": last_day},
        quality=job.settings.quality,
        clean=job.settings.clean,
        run_date=job.run_date,
        past=past,
    )
    return [expectations.interaction_check(events.figures), profile]


def known_items(job: Job, batch: Batch | None) -> DataFrame:
    """item_id of all items in silver, and of the batch of items that is to be merged."""
    known = job.read(SILVER_ITEMS).select("item_id")
    return known if batch is None else known.unionByName(batch.good.select("item_id"))


def _merge(job: Job, batches: list[Batch]) -> None:
    """Quarantine and silver, side by side; a crash before the mark repeats steps that change nothing."""
    rejected = [batch for batch in batches if batch.counts["rows_quarantined", batch.kind]]
    together(
        *[
            partial(
                merge_batch, job.lake, SILVER[batch.kind], batch.good, identity=KINDS[batch.kind].identity
            )
            for batch in batches
            if batch.counts["rows_good", batch.kind]
        ],
        partial(_quarantine, job, rejected),
    )


def _quarantine(job: Job, batches: list[Batch]) -> None:
    """The rejected rows of all kinds, in one commit."""
    rows = [quarantined(batch.rows, kind=batch.kind) for batch in batches]
    if rows:
        job.merge(SILVER_QUARANTINE, reduce(DataFrame.unionByName, rows))


def _mark(job: Job, batches: list[Batch], figures: dict[tuple[str, str], float]) -> None:
    """Note which files are in silver, so that no later night looks at them again, and what was in them.

    In one commit: a night that ends here leaves the counts that later nights compare theirs with.
    """
    marks = {(_DONE, file): 1.0 for batch in batches for file in batch.files}
    if marks:
        job.record("clean", figures | marks)
