"""Quarantine to silver: rejected rows judged again by today's rules and mappings, on the way of all rows.

Not a stage of the night: `recsys quarantine --reprocess` runs it after a rule or a mapping was repaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.cleaning.batch import Batch, judged_batch
from recsys_spark.data.cleaning.finished import count_unmatched, known_items
from recsys_spark.data.gates import judge as quality
from recsys_spark.data.gates import suites as expectations
from recsys_spark.data.gates.figures import unknown_items
from recsys_spark.data.kinds.rules import check_time_formats
from recsys_spark.data.pseudonyms import pseudonym_key, require_same_key
from recsys_spark.data.quarantine.remap import remapped, rows_again
from recsys_spark.data.quarantine.samples import bronze_of, repaired_keys, repairs_by_reason
from recsys_spark.data.unsubscribes import unmatched_note
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.tables import (
    BRONZE,
    FIELDS_BY_KIND,
    OPS_METRICS,
    SILVER_QUARANTINE,
)
from recsys_spark.runtime.checkpoints import checkpointed

# A row's reasons and its text may be others under other rules; it stays the same row.
_OTHER = "s.reject_reasons <> t.reject_reasons OR NOT (s.raw <=> t.raw)"
_NOT_DELIVERED = ("rows_in", "rejected")


@dataclass(frozen=True)
class Again:
    """Quarantined rows of one kind, judged again.

    waiting: their rows in the quarantine; bronze: their rows in bronze under today's mapping, with
    `is_changed`; repaired: the keys of those that are rejected no more.
    """

    batch: Batch
    waiting: DataFrame
    bronze: DataFrame
    repaired: DataFrame


def reprocess(job: Job) -> Summary:
    """Rows quarantined up to the run date, back through judgement, deduplication, gate and merge."""
    quality.preload()
    check_time_formats(job.spark, job.settings.sources)
    open_run(job.lake, job.settings, job.run_date)
    require_same_key(job.read(OPS_METRICS), pseudonym_key(job.settings.privacy))
    notes: list[str] = []
    figures: dict[tuple[str, str], float] = {}
    judged: list[Again] = []
    try:
        for kind in BRONZE:
            if (again := _again(job, kind, notes)) is not None:
                judged.append(again)
                figures |= again.batch.counts | _counts_by_reason(again)
        _gate(job, [again.batch for again in judged])
        for again in judged:
            _merge(job, again)
            if note := unmatched_note(again.batch.figures):
                notes.append(note)
    finally:
        for again in judged:
            again.batch.close()
    return _summary(figures, notes)


def _again(job: Job, kind: str, notes: list[str]) -> Again | None:
    """What is quarantined of one kind, judged again; None where nothing is."""
    waiting = job.read(SILVER_QUARANTINE).where(
        (F.col("kind") == kind) & (F.col("ingest_date") <= F.lit(job.run_date))
    )
    if waiting.isEmpty():
        return None
    bronze = checkpointed(_under_todays_mapping(job, kind, waiting, notes))
    batch = judged_batch(job, kind, bronze.drop("is_changed"), [])
    judged = bronze.withColumn("kind", F.lit(kind))
    try:
        repaired = checkpointed(repaired_keys(judged, batch.rejected))
    except BaseException:
        batch.close()
        raise
    return Again(batch, waiting, bronze, repaired)


def _under_todays_mapping(job: Job, kind: str, waiting: DataFrame, notes: list[str]) -> DataFrame:
    """The bronze rows of what waits, with `is_changed`; read again from their files where those are left."""
    bronze = job.read(BRONZE[kind])
    stored = bronze_of(bronze, waiting)
    files = waiting.select("source", "content_hash").distinct()
    sizes = bronze.join(files, on=["source", "content_hash"], how="left_semi")
    taken: dict[str, dict[str, tuple[str, int]]] = {}
    for row in sizes.groupBy("source", "source_file", "content_hash").count().collect():
        taken.setdefault(row["source"], {})[row["content_hash"]] = (row["source_file"], row["count"])
    fresh = [
        rows for name in sorted(taken) if (rows := _read_again(job, name, taken[name], notes)) is not None
    ]
    if not fresh:
        return stored.withColumn("is_changed", F.lit(False))
    return remapped(stored, reduce(DataFrame.unionByName, fresh), payload=FIELDS_BY_KIND[kind])


def _read_again(job: Job, name: str, taken: dict[str, tuple[str, int]], notes: list[str]) -> DataFrame | None:
    source = job.settings.sources.get(name)
    if source is None:
        notes.append(f"{name}: no longer a source, judged as bronze has it")
        return None
    key = pseudonym_key(job.settings.privacy)
    rows, note = rows_again(job.spark, name, source, taken=taken, key=key)
    if note:
        notes.append(f"{name}: {note}" + ("" if rows is not None else ", judged as bronze has it"))
    return rows


def _counts_by_reason(again: Again) -> dict[tuple[str, str], float]:
    """(repaired | still_rejected, kind:reason) -> rows; a row with two reasons counts under both."""
    counts: dict[tuple[str, str], float] = {}
    for reason, (repaired, still) in repairs_by_reason(again.waiting, again.repaired).items():
        counts["repaired", f"{again.batch.kind}:{reason}"] = repaired
        counts["still_rejected", f"{again.batch.kind}:{reason}"] = still
    return counts


def _gate(job: Job, batches: list[Batch]) -> None:
    """The suites of `clean`, without what only a night's whole delivery can be: large, fresh, mostly good."""
    thresholds = job.settings.quality
    by_kind = {batch.kind: batch for batch in batches if batch.figures["rows"]}
    count_unmatched(job.lake, by_kind, campaigns=job.settings.campaigns.values())
    checks = [
        judge(_without_delivery(by_kind[kind]), quality=thresholds)
        for kind, judge in expectations.SUITES.items()
        if kind in by_kind
    ]
    if "interactions" in by_kind:
        events = by_kind["interactions"]
        unknown = unknown_items(events.good, known_items(job.lake, by_kind.get("items")))
        figures = {**_without_delivery(events), "unknown_items": unknown}
        checks.append(expectations.interaction_check(figures))
        checks.append(expectations.repaired_check(figures, quality=thresholds))
    if checks:
        results = quality.judged(job, checks, stage="reprocess")
        quality.require_success(results, what="the repaired rows were not merged")


def _without_delivery(batch: Batch) -> dict[str, float]:
    return {name: value for name, value in batch.figures.items() if name not in _NOT_DELIVERED}


def _merge(job: Job, again: Again) -> None:
    """Bronze, then silver, then the quarantine: each a commit that a rerun repeats without effect.

    A row is in the quarantine until it is in silver, so a crash in between loses none.
    """
    kind = again.batch.kind
    changed = again.bronze.where("is_changed").drop("is_changed")
    if not changed.isEmpty():
        job.merge(BRONZE[kind], changed, newer="true")
    if again.batch.figures["rows"]:
        again.batch.merge(job)
    job.lake.merge(SILVER_QUARANTINE, again.batch.rejected, newer=_OTHER, gone=again.repaired)


def _summary(figures: dict[tuple[str, str], float], notes: list[str]) -> Summary:
    def total(name: str) -> int:
        return int(sum(value for (metric, _), value in figures.items() if metric == name))

    rows_in, merged, again = total("rows_in"), total("rows_good"), total("rows_duplicate")
    sentence = f"{merged:,} good, {again:,} duplicates, {total('rows_quarantined'):,} still rejected"
    if not rows_in:
        sentence = "nothing is quarantined"
    return Summary(rows_in, merged, "silver.*", figures, (sentence, *notes))
