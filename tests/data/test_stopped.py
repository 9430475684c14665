"""Rows that are lost are told, and a stage stopped at any point and run again ends as if it never was."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.data.cleaning import batch
from recsys_spark.data.cleaning.clean import deduplicate
from recsys_spark.data.gates.past_nights import past_nights
from recsys_spark.data.sources import bronze_rows
from recsys_spark.errors import RecsysError
from recsys_spark.lake.job import Job
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import (
    BRONZE_INTERACTIONS,
    OPS_METRICS,
    OPS_SOURCE_COLUMNS,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
    SILVER_QUARANTINE,
    Table,
)
from recsys_spark.night import run_stage
from recsys_spark.runtime.memory import MemoryWatch
from recsys_spark.stages import ingest
from tests.data.deliveries import events_in, stopping, two_items
from tests.settings import demo_in
from tests.tables import rows_for

DAY = date(2024, 5, 3)
# Two repeats (one under another date), one bad row, and blank lines, which are no rows.
EVENTS = """id,user,item,at,extra

e1,u1,i1,2024-05-01 11:00:00,x
e1,u1,i1,2024-05-01 11:00:00,x
e2,u2,i1,2024-05-01 12:00:00,x
e2,u2,i1,2024-05-02 12:00:00,x
e3,,i1,2024-05-02 12:00:00,x
{blanks}
e4,u2,i2,2024-05-02 12:00:00,x
""".format(blanks="   ")


@pytest.fixture
def job(spark: SparkSession, tmp_path: Path) -> Job:
    (tmp_path / "events.csv").write_text(EVENTS, encoding="utf-8")
    web = events_in(tmp_path / "events.csv", constants={"event_type": "purchase"})
    sources = {"web": web, "items": two_items(tmp_path)}
    return Job(spark, demo_in(tmp_path, quality={"max_rejected_share": 0.5}, sources=sources), DAY)


def ids(job: Job, table: Table, name: str) -> list[str]:
    return sorted(str(row[name]) for row in job.read(table).select(name).collect())


def test_rows_lost_before_bronze_are_told_and_a_stop_behind_them_forgets_no_column(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(rows: DataFrame, **named: object) -> DataFrame:
        return bronze_rows(rows, **named).where("event_id IS NULL OR event_id <> 'e4'")  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(ingest, "bronze_rows", losing)
        with pytest.raises(RecsysError, match="'web': 6 rows were counted and 5 written to bronze.interact"):
            ingest.run(job)
    assert ids(job, BRONZE_INTERACTIONS, "event_id") == []
    job.lake.delete(OPS_SOURCE_COLUMNS, "true")
    with monkeypatch.context() as broken:
        broken.setattr(Lake, "append", stopping(Lake.append, BRONZE_INTERACTIONS, after=True))
        with pytest.raises(KeyboardInterrupt):
            ingest.run(job)
    ingest.run(job)
    assert ids(job, BRONZE_INTERACTIONS, "event_id") == ["e1", "e1", "e2", "e2", "e3", "e4"]
    known = {(row["source"], row["column_name"]) for row in job.read(OPS_SOURCE_COLUMNS).collect()}
    assert {name for source, name in known if source == "web"} == {"id", "user", "item", "at", "extra"}


def test_what_a_stopped_run_took_and_could_not_record_is_counted_by_the_next_and_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[tuple[str, str], float]:
        """What all runs of the date recorded."""
        sums: Counter[tuple[str, str]] = Counter()
        for row in job.read(OPS_METRICS).where("stage = 'ingest' AND label IN ('web', 'items')").collect():
            sums[row["metric"], row["label"]] += row["value"]
        return dict(sums)

    with monkeypatch.context() as broken:
        broken.setattr(Job, "record", lambda *_: None)
        run_stage("ingest", job, MemoryWatch())
    assert ids(job, BRONZE_INTERACTIONS, "event_id") == ["e1", "e1", "e2", "e2", "e3", "e4"]
    more = "id,user,item,at,extra\ne5,u3,i1,2024-05-02 13:00:00,x\ne6,u3,i2,2024-05-02 13:00:00,x\n"
    events = Path(job.settings.sources["web"].path)
    events.write_text(more, encoding="utf-8")
    mended = run_stage("ingest", job, MemoryWatch())
    of_web = {"rows_read": 6.0 + 2, "rows_ingested": 6.0 + 2, "files_ingested": 1.0 + 1}
    of_items = {"rows_read": 2.0, "rows_ingested": 2.0, "files_ingested": 1.0}
    expected = {(name, "web"): value for name, value in of_web.items()}
    expected |= {(name, "items"): value for name, value in of_items.items()}
    assert counted() == expected
    assert (mended.rows_in, mended.rows_out) == (10, 10)
    assert "web: 6 rows were taken before, by a run that ended before it could record it" in mended.notes
    again = run_stage("ingest", job, MemoryWatch())
    assert (again.rows_out, counted()) == (0, expected)
    assert not [note for note in again.notes if "taken before" in note]
    # Another night has nothing of this one to mend.
    events.write_text(more.replace("e5", "e7"), encoding="utf-8")
    assert run_stage("ingest", replace(job, run_date=date(2024, 5, 4)), MemoryWatch()).rows_out == 2


def test_rows_lost_in_judgement_do_not_pass_for_duplicates(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"source": "web", "content_hash": "h", "event_type": "purchase", "user_id": "u", "item_id": "i"}
    given |= dict.fromkeys(("delivered_at", "ingested_at"), datetime(2024, 5, 3))
    days = {"e1": (1, 1), "e2": (1, 2), "e3": (2,)}  # e1 twice, e2 once more under another date
    rows = [
        {**given, "event_id": event, "event_at": f"2024-05-0{day}"}
        for event, on in days.items()
        for day in on
    ]
    bronze = rows_for(job.spark, BRONZE_INTERACTIONS, *rows)
    counts = batch.judged_batch(job, "interactions", bronze, []).counts
    assert counts == {
        ("rows_in", "interactions"): 5,
        ("rows_good", "interactions"): 3,
        ("rows_quarantined", "interactions"): 0,
        ("rows_duplicate", "interactions"): 2,
    }

    def losing(rows: DataFrame, kind: str, **named: object) -> DataFrame:
        return deduplicate(rows, kind, **named).where("event_id <> 'e3'")  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "deduplicate", losing)
    with pytest.raises(RecsysError, match="2 good, 0 rejected and 2 duplicate rows of 5 in bronze: .* lost"):
        batch.judged_batch(job, "interactions", bronze, [])


def test_a_stage_stopped_between_two_tables_and_behind_its_mark_writes_and_counts_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("ingest", job, MemoryWatch())
    for name, stop in (
        ("merge", stopping(Lake.merge, SILVER_QUARANTINE, after=False)),
        ("append", stopping(Lake.append, OPS_METRICS, after=True)),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(Lake, name, stop)
            with pytest.raises(KeyboardInterrupt):
                run_stage("clean", job, MemoryWatch())
        assert job.lake.exists(SILVER_INTERACTIONS)
        assert job.lake.exists(SILVER_QUARANTINE) == (name == "append")
    run_stage("clean", job, MemoryWatch())
    assert ids(job, SILVER_INTERACTIONS, "event_id") == ["e1", "e2", "e4"]
    assert ids(job, SILVER_ITEMS, "item_id") == ["i1", "i2"]
    assert [json.loads(raw)["event_id"] for raw in ids(job, SILVER_QUARANTINE, "raw")] == ["e3"]
    counts: Counter[tuple[str, str]] = Counter()
    for row in job.read(OPS_METRICS).where("stage = 'clean'").collect():
        counts[row["metric"], row["label"]] += int(row["value"])
    assert {metric: value for (metric, label), value in counts.items() if label == "interactions"} == {
        "rows_in": 6,
        "rows_good": 3,
        "rows_quarantined": 1,
        "rows_duplicate": 2,
    }
    past = past_nights(job.lake, "interactions", run_date=date(2024, 5, 4), nights=7, adds_up=True)
    assert [night["rows"] for night in past.nights] == [3]
    reads_its_own_night_only(job)


def reads_its_own_night_only(job: Job) -> None:
    """The next night cleans what it took in, also where the rows of the night before cannot be read."""
    delivered = Path(job.settings.sources["web"].path)
    delivered.write_text("id,user,item,at,extra\ne5,u1,i2,2024-05-03 11:00:00,x\n", encoding="utf-8")
    following = replace(job, run_date=date(2024, 5, 4))
    old = DeltaTable(job.lake.path(BRONZE_INTERACTIONS)).file_uris()
    run_stage("ingest", following, MemoryWatch())
    for file in old:
        Path(file).unlink()
    run_stage("clean", following, MemoryWatch())
    assert old
    assert ids(job, SILVER_INTERACTIONS, "event_id") == ["e1", "e2", "e4", "e5"]
