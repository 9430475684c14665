"""What `recsys quarantine` prints: rejected rows by reason, what a repair took back, what was left out."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from recsys_spark.commands.output import show, write_json
from recsys_spark.config.load import load_settings, resolve_path
from recsys_spark.data.pseudonyms import personal_fields
from recsys_spark.data.quarantine.discard import discarded, waiting_file
from recsys_spark.data.quarantine.reprocess import reprocess
from recsys_spark.data.quarantine.samples import by_reason
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Summary
from recsys_spark.lake.store import Lake
from recsys_spark.night import holding, job_of, parse_date, run_stage, session


def show_rejected(env: str, run_date: str, *, samples: int, is_masked: bool, json_file: Path | None) -> None:
    """Print counts and samples of rejected rows by reason.

    env: the environment, conf/ENV.toml.
    run_date: only rows taken in by this night, YYYY-MM-DD; all for an empty text.
    samples: rows shown for each reason, from 0.
    is_masked: show the shape of user ids and broken lines, not what they say.
    json_file: where the same is written too, if anywhere.

    Raises ConfigError for an unknown environment or what is no date.
    """
    settings, day = load_settings(env), parse_date(run_date) if run_date else None
    lake = Lake(session("recsys", settings), resolve_path(settings, settings.lake.path))
    personal = {name: personal_fields(source) for name, source in settings.sources.items()}
    rejected = by_reason(lake, samples=samples, run_date=day, personal=personal, is_masked=is_masked)
    table = Table("kind", "source", "reason", "rows", "samples")
    for row in rejected:
        shown = "\n".join(row.samples)
        table.add_row(row.kind, row.source, row.reason, f"{row.rows:,}", shown)
    show(table if rejected else "nothing is quarantined")
    write_json(json_file, [asdict(row) for row in rejected])


def reprocess_rows(env: str, run_date: str, json_file: Path | None) -> None:
    """Take repaired rows back and print, for each reason, how many came back and how many did not."""
    if not run_date:
        raise ConfigError(
            "--reprocess needs --run-date: the night in whose name rows are judged again. "
            "Next: recsys quarantine --reprocess --run-date YYYY-MM-DD"
        )
    job = job_of(env, run_date)
    with holding(job.settings, f"reprocess of {run_date}") as memory:
        summary = run_stage("reprocess", job, memory, work=reprocess)
    counts = by_old_reason(summary)
    table = Table("kind", "reason", "repaired", "still rejected")
    for row in counts:
        table.add_row(row["kind"], row["reason"], f"{row['repaired']:,}", f"{row['still_rejected']:,}")
    if counts:
        show(table)
    if summary.rows_out:
        print(f"next    recsys run --run-date {run_date} --env {env} --from preferences")
    write_json(json_file, counts)


def discard_file(env: str, file: str, json_file: Path | None) -> None:
    """Leave one delivered file out of silver for good, and print which and how many rows."""
    # The job is of no night: the discard is noted with the one that took the file in.
    job = job_of(env, str(datetime.now(UTC).date()))
    with holding(job.settings, f"discard of {file}"):
        delivered, rows = waiting_file(job.lake, file)
        replace(job, run_date=delivered.ingest_date).record("discard", discarded(delivered, rows))
    print(
        f"discarded {delivered.file} ({delivered.kind}, source {delivered.source}, "
        f"content {delivered.content_hash[:12]}): {rows:,} rows stay in bronze and are not taken to silver"
    )
    write_json(json_file, [{**asdict(delivered), "ingest_date": f"{delivered.ingest_date}", "rows": rows}])


def by_old_reason(summary: Summary) -> list[dict[str, Any]]:
    """One entry for each kind and reason that rows were quarantined for."""
    labels = sorted({label for metric, label in summary.figures if metric == "repaired"})
    return [
        {
            "kind": label.partition(":")[0],
            "reason": label.partition(":")[2],
            "repaired": int(summary.figures["repaired", label]),
            "still_rejected": int(summary.figures["still_rejected", label]),
        }
        for label in labels
    ]
