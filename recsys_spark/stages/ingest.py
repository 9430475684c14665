"""Files to bronze: each content once, as delivered; opens the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.load import resolve_path
from recsys_spark.data.features import number_names
from recsys_spark.data.kinds.rules import check_time_formats
from recsys_spark.data.pseudonyms import key_mark, pseudonym_key, require_same_key, without_plain_ids
from recsys_spark.data.sources import (
    Delivery,
    Known,
    bronze_rows,
    new_deliveries,
    one_slash,
    rows_by_file,
    shared_by_file,
    writing,
)
from recsys_spark.errors import ConfigError, RecsysError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import delivered_files, open_run
from recsys_spark.lake.staged import take_in, write_beside
from recsys_spark.lake.tables import BRONZE, FIELDS_BY_KIND, OPS_METRICS, OPS_SOURCE_COLUMNS, Table
from recsys_spark.models.content_features import check_features
from recsys_spark.runtime.parallel import in_parallel
from recsys_spark.runtime.rows import frame_of

# Formats of which a file is a delivery, with a time of its own.
_FILES = ("csv", "jsonl", "parquet")


def run(job: Job) -> Summary:
    if not any(source.kind == "interactions" for source in job.settings.sources.values()):
        raise ConfigError(f"{job.settings.env}.toml has no [sources.NAME] of kind 'interactions'.")
    job.lake.check_writable()
    # Settings that a later stage would find wrong, when bronze and silver are written.
    check_time_formats(job.spark, job.settings.sources)
    check_features(job.settings.content, number_names(job.settings.sources, job.settings.features))
    key = pseudonym_key(job.settings.privacy)
    require_same_key(job.read(OPS_METRICS), key)
    # Everything is looked at before anything is written: a fault in one source leaves bronze as it was.
    known = _known(job)
    deliveries = _new_rows(job, known)
    figures: Counter[tuple[str, str]] = Counter({("user_ids", key_mark(key)): 1.0})
    unrecorded = _unrecorded(job)
    figures.update(unrecorded)
    notes = [
        f"{name}: {rows:,.0f} rows were taken before, by a run that ended before it could record it"
        for (metric, name), rows in unrecorded.items()
        if metric == "rows_ingested"
    ]
    for name, delivery in deliveries.items():
        notes.extend(f"{name}: {note}" for note in delivery.notes)
        if delivery.rows is None and not delivery.notes:
            notes.append(f"{name}: nothing new")
    # Before the rows: a file that bronze holds is not looked into again, so its columns would stay unknown.
    _remember_columns(job, deliveries, known)
    kinds = sorted({job.settings.sources[name].kind for name in deliveries})
    for counts in in_parallel(*[partial(_append, job, kind, deliveries, key) for kind in kinds]):
        figures.update(counts)
    opened = open_run(job.lake, job.settings, job.run_date)
    read, taken = (
        int(sum(value for (metric, _), value in figures.items() if metric == name))
        for name in ("rows_read", "rows_ingested")
    )
    return Summary(read, taken, "bronze.*", dict(figures), (*notes, f"run {opened.run_id}"))


def _unrecorded(job: Job) -> dict[tuple[str, str], float]:
    """What bronze took on this run date and ops.metrics does not say: a run was killed between the two.

    By source, as `_append` counts it. A run that takes a date up for the first time reads nothing.
    """
    taken = [file for file in delivered_files(job.lake) if file.ingest_date == job.run_date]
    if not taken:
        return {}
    sums = (
        job.read(OPS_METRICS)
        .where((F.col("run_date") == F.lit(job.run_date)) & (F.col("stage") == "ingest"))
        .where(F.col("metric").isin("rows_ingested", "files_ingested"))
        .groupBy("metric", "label")
        .agg(F.sum("value").alias("value"))
    )
    recorded = {(row["metric"], row["label"]): row["value"] for row in sums.collect()}
    unrecorded: dict[tuple[str, str], float] = {}
    for kind in sorted({file.kind for file in taken}):
        of_night = job.read(BRONZE[kind]).where(F.col("ingest_date") == F.lit(job.run_date))
        for row in of_night.groupBy("source").count().collect():
            name = row["source"]
            rows = row["count"] - recorded.get(("rows_ingested", name), 0.0)
            files = sum(file.source == name for file in taken) - recorded.get(("files_ingested", name), 0.0)
            if rows > 0:
                unrecorded["rows_read", name] = unrecorded["rows_ingested", name] = rows
                unrecorded["files_ingested", name] = max(files, 0.0)
    return unrecorded


def _append(
    job: Job, kind: str, deliveries: Mapping[str, Delivery], key: bytes | None
) -> dict[tuple[str, str], float]:
    """The new rows of all sources of one kind into its table, one commit each; what was taken."""
    figures: dict[tuple[str, str], float] = {}
    table = BRONZE[kind]
    for name, delivery in deliveries.items():
        source = job.settings.sources[name]
        if source.kind != kind or delivery.rows is None:
            continue
        rows = without_plain_ids(delivery.rows, source, key)
        with writing(name, source):
            write = _write_and_take_in if _is_large(job, table, delivery) else _append_rows
            written = write(job, kind, name, delivery, rows)
        figures["rows_read", name] = delivery.row_count
        figures["rows_ingested", name] = written
        figures["files_ingested", name] = len(delivery.files)
    return figures


def _is_large(job: Job, table: Table, delivery: Delivery) -> bool:
    """Whether the rows are written first and taken in then; not into a table that is laid out otherwise."""
    is_large = delivery.row_count >= job.settings.lake.large_batch_rows
    return is_large and job.lake.is_as_declared(table)


def _write_and_take_in(job: Job, kind: str, name: str, delivery: Delivery, rows: DataFrame) -> int:
    """Write each file's rows as files of their own, and take them in if they are all."""
    table, files = BRONZE[kind], delivery.files
    staged = write_beside(job.lake, table, rows_by_file(rows, files=files, payload=FIELDS_BY_KIND[kind]))
    try:
        written = sum(staged.rows.values())
        if written != delivery.row_count:
            raise _incomplete(job, table, name, delivery, written)
        take_in((staged, shared_by_file(name=name, files=files, run_date=job.run_date)))
    finally:
        staged.close()
    return written


def _append_rows(job: Job, kind: str, name: str, delivery: Delivery, rows: DataFrame) -> int:
    """Append the rows; they are taken out again if they are not all."""
    table, payload = BRONZE[kind], FIELDS_BY_KIND[kind]
    job.append(
        table, bronze_rows(rows, name=name, files=delivery.files, run_date=job.run_date, payload=payload)
    )
    written = job.lake.rows_written(table)
    if written != delivery.row_count:
        contents = [file.content_hash for file in delivery.files]
        job.lake.delete(table, (F.col("source") == name) & F.col("content_hash").isin(contents))
        raise _incomplete(job, table, name, delivery, written)
    return written


def _incomplete(job: Job, table: Table, name: str, delivery: Delivery, written: int) -> RecsysError:
    return RecsysError(
        f"source {name!r}: {delivery.row_count:,} rows were counted and {written:,} written to "
        f"{table.name}: the delivery changed while it was read, or rows were lost. Nothing of it was "
        f"kept. Next: recsys run --run-date {job.run_date} --from ingest, once the delivery is complete."
    )


def _new_rows(job: Job, known: Mapping[str, Known]) -> dict[str, Delivery]:
    sources = job.settings.sources
    places = {name: resolve_path(job.settings, source.path) for name, source in sources.items()}
    return new_deliveries(job.spark, sources, places=places, known=known)


def _known(job: Job) -> dict[str, Known]:
    """What bronze holds of each source, and the columns that its deliveries had."""
    contents: dict[str, dict[str, dict[str, int]]] = {}
    for taken in delivered_files(job.lake):
        files = contents.setdefault(taken.source, {})
        files.setdefault(one_slash(taken.file), {})[taken.content_hash] = taken.modified_ms
    columns: dict[str, dict[str, str]] = {}
    for row in job.read(OPS_SOURCE_COLUMNS).orderBy("recorded_at", "column_name").collect():
        columns.setdefault(row["source"], {})[row["column_name"]] = row["type"]
    return {
        name: Known(
            contents.get(name, {}), columns.get(name, {}), source.snapshot and source.format in _FILES
        )
        for name, source in job.settings.sources.items()
    }


def _remember_columns(job: Job, deliveries: Mapping[str, Delivery], known: Mapping[str, Known]) -> None:
    """Add to ops.source_columns what no earlier delivery had."""
    now = datetime.now(UTC)
    rows = [
        (name, column, kind, job.run_date, now)
        for name, delivery in deliveries.items()
        for column, kind in delivery.columns.items()
        if known[name].columns.get(column) != kind
    ]
    if rows:
        job.append(OPS_SOURCE_COLUMNS, frame_of(job.spark, rows, OPS_SOURCE_COLUMNS.schema))
