"""Files to bronze: each content once, as delivered; opens the run."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Source, resolve_path
from recsys_spark.data.sources import SourceFile, bronze_rows, find_files, read_source, with_content_hash
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.tables import BRONZE, FIELDS_BY_KIND


def run(job: Job) -> Summary:
    if not any(source.kind == "interactions" for source in job.settings.sources.values()):
        raise ConfigError(f"{job.settings.env}.toml has no [sources.NAME] of kind 'interactions'.")
    job.lake.check_writable()
    # Everything is looked at before anything is written: a fault in one source leaves bronze as it was.
    deliveries = {name: _new_rows(job, name, source) for name, source in job.settings.sources.items()}
    figures: dict[tuple[str, str], float] = {}
    notes: list[str] = []
    for name, (files, rows) in deliveries.items():
        table = BRONZE[job.settings.sources[name].kind]
        if rows is None:
            notes.append(f"{name}: nothing new")
            continue
        job.append(table, rows)
        figures["rows_ingested", name] = job.lake.rows_written(table)
        figures["files_ingested", name] = len(files)
    opened = open_run(job.lake, job.settings, job.run_date)
    taken = int(sum(value for (metric, _), value in figures.items() if metric == "rows_ingested"))
    return Summary(taken, taken, "bronze.*", figures, (*notes, f"run {opened.run_id}"))


def _new_rows(job: Job, name: str, source: Source) -> tuple[list[SourceFile], DataFrame | None]:
    path = resolve_path(job.settings, source.path)
    found = [with_content_hash(job.spark, file) for file in find_files(job.spark, name, path)]
    known = _known_contents(job, name, source)
    by_content = {file.content_hash: file for file in reversed(found) if file.content_hash not in known}
    files = sorted(by_content.values(), key=lambda file: file.path)
    if not files:
        return [], None
    mapped = read_source(job.spark, name, source, files)
    if mapped.isEmpty():
        raise InputError(
            f"source {name!r}: {path} holds no rows. Expected {source.kind}. Next: check the delivery."
        )
    payload = FIELDS_BY_KIND[source.kind]
    return files, bronze_rows(mapped, name=name, files=files, run_date=job.run_date, payload=payload)


def _known_contents(job: Job, name: str, source: Source) -> set[str]:
    known = job.read(BRONZE[source.kind]).where(F.col("source") == name).select("content_hash").distinct()
    return {row["content_hash"] for row in known.collect()}
