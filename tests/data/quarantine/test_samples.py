"""The quarantine: what it shows of rejected rows, and how repaired ones come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.commands.repair import quarantine_tables
from recsys_spark.data.quarantine.discard import waiting_file
from recsys_spark.data.quarantine.reprocess import reprocess
from recsys_spark.data.quarantine.samples import Rejected, by_reason, masked, shape
from recsys_spark.errors import ConfigError, QualityGateError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import (
    BRONZE_INTERACTIONS,
    BRONZE_ITEMS,
    OPS_METRICS,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
    SILVER_QUARANTINE,
)
from recsys_spark.stages import clean, ingest
from tests.data.deliveries import KEYS, events_in, stopping, two_items
from tests.settings import demo_in
from tests.tables import bronze, content, rows_for, rows_of

DAY = date(2024, 5, 3)
EVENTS = """id,user,item,at,seen,what
w1,u1,i1,2024-05-01 11:00:00,soon,view
w2,u2,i1,2024-05-01 12:00:00,soon,wish
w3,u2,i1,2024-05-01 12:00:00,soon,teleport
w1,u1,i1,2024-05-01 11:00:00,soon,view
w5,,i1,2024-05-01 12:00:00,soon,view
w6,u2,i2,2024-05-01 12:00:00,2024-05-01 12:00:00,view
"""

Night = Callable[..., Job]


@pytest.fixture
def night(spark: SparkSession, tmp_path: Path) -> Night:
    """`night(at, types)`: a job on a tiny shop whose events take their time from column `at`."""
    (tmp_path / "events.csv").write_text(EVENTS, encoding="utf-8")
    items = two_items(tmp_path)

    def job(at: str, *types: str, lake: str = "lake", unknown: float = 0.5) -> Job:
        web = events_in(tmp_path / "events.csv", columns=KEYS | {"event_at": at, "event_type": "what"})
        settings = demo_in(
            tmp_path,
            lake={"path": f"{tmp_path}/{lake}"},
            clean={"event_types": ["purchase", "view", *types]},
            quality={"max_rejected_share": 1.0, "max_unknown_item_share": unknown},
            sources={"web": web, "items": items},
        )
        return Job(spark, settings, DAY)

    return job


def deliver(
    job: Job,
    content_hash: str,
    *rows: dict[str, str],
    table=BRONZE_INTERACTIONS,
    source="web",
    day: date = DAY,
) -> None:
    """Rows of one file of this content, as `ingest` leaves them."""
    at = datetime(2024, 5, 3)
    file = {"source": source, "source_file": "file:/shop/events.csv", "content_hash": content_hash}
    file |= {"delivered_at": at, "ingested_at": at, "ingest_date": day}
    job.append(table, bronze(job.spark, [{**file, **row} for row in rows], table))


def event(event_id: str, item: str = "i1", kind: str = "view") -> dict[str, str]:
    given = {"event_id": event_id, "user_id": "u1", "item_id": item, "event_type": kind}
    return {**given, "event_at": "2024-05-01 11:00:00"}


def waiting(
    row: int, reasons: list[str], raw: str, *, file="f", of="h", day: date = DAY
) -> dict[str, object]:
    """A row of the quarantine; of: the content of its file."""
    place = {"kind": "interactions", "source": "web", "source_file": file, "content_hash": of, "row": row}
    return {**place, "reject_reasons": reasons, "raw": raw, "ingest_date": day}


def test_a_row_repaired_by_a_rule_comes_back_and_one_that_is_not_stays(night: Night) -> None:
    """Of a file that is gone: judged as bronze has it."""
    repaired = night("at", "wish")
    deliver(repaired, "a", event("w1"), event("w2", kind="wish"), event("w3", kind="?"))
    repaired.append(SILVER_ITEMS, rows_for(repaired.spark, SILVER_ITEMS, {"item_id": "i1"}))
    rejected = [
        waiting(row, ["unknown_event_type"], "as it was", file="file:/shop/events.csv", of="a")
        for row in (1, 2)
    ]
    repaired.append(SILVER_QUARANTINE, rows_for(repaired.spark, SILVER_QUARANTINE, *rejected))
    summary = reprocess(repaired)
    assert [row["event_id"] for row in repaired.read(SILVER_INTERACTIONS).collect()] == ["w2"]
    [left] = repaired.read(SILVER_QUARANTINE).collect()
    assert (left["row"], left["reject_reasons"]) == (2, ["unknown_event_type"])
    assert json.loads(left["raw"])["event_id"] == "w3"
    assert counts(summary, "repaired", "still_rejected", "rows_good", "rows_duplicate") == {
        ("rows_good", "interactions"): 1,
        ("rows_duplicate", "interactions"): 0,
        ("repaired", "interactions:unknown_event_type"): 1,
        ("still_rejected", "interactions:unknown_event_type"): 1,
    }


def test_a_refused_file_is_left_out_by_its_content_and_its_correction_is_taken(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = night("at", unknown=0.0)
    wrong, right = "0123456789abcdef", "fedcba9876543210"
    deliver(job, wrong, event("w1", item="nobody's"))
    # As a lake mended by hand may have it: one content under two nights.
    deliver(job, wrong, event("w2", item="nobody's"), day=date(2024, 5, 4))
    deliver(job, right, event("w1"))
    deliver(job, "c", {"item_id": "i1", "title": "tea"}, table=BRONZE_ITEMS, source="items")
    run = open_run(job.lake, job.settings, DAY)
    with pytest.raises(QualityGateError, match=r"unknown_item_share.*recsys quarantine --discard FILE"):
        clean.run(job)
    later = replace(job, run_date=date(2024, 5, 9))  # whichever night it is asked for in
    with pytest.raises(ConfigError, match=f"4 files .* called 'events.csv': .*content {wrong[:12]}"):
        waiting_file(later.lake, "events.csv")
    with pytest.raises(ConfigError, match=r"no file 'orders.csv' waits for silver .*events.csv \(web"):
        waiting_file(later.lake, "orders.csv")
    monkeypatch.setattr(quarantine_tables, "job_of", lambda *_: later)
    given = ["quarantine", "--env", "demo", "--discard", wrong[:8]]
    discarded = CliRunner().invoke(app, [*given, "--json", str(tmp_path / "discarded.json")])
    assert discarded.exit_code == 0, discarded.output
    assert "2 rows stay in bronze and are not taken to silver" in discarded.stdout
    [entry] = json.loads((tmp_path / "discarded.json").read_text(encoding="utf-8"))
    file = [entry[name] for name in ("source", "content_hash", "ingest_date", "rows")]
    assert file == ["web", wrong, f"{DAY}", 2]
    assert CliRunner().invoke(app, [*given, "--reprocess"]).exit_code == 2
    noted = job.read(OPS_METRICS).where("stage = 'discard'").collect()
    assert [(row["run_id"], row["run_date"], row["label"], row["value"]) for row in noted] == [
        (run.run_id, DAY, f"interactions:web:{wrong}", 2.0)
    ]
    assert clean.run(job).figures["rows_in", "interactions"] == 1
    taken = job.read(SILVER_INTERACTIONS).select("event_id", "item_id").collect()
    assert [tuple(row) for row in taken] == [("w1", "i1")]
    with pytest.raises(ConfigError, match=r"no file '/shop/events.csv' waits .* None waits"):
        waiting_file(later.lake, "/shop/events.csv")


def counts(summary: Summary, *metrics: str) -> dict[tuple[str, str], float]:
    return {key: value for key, value in summary.figures.items() if key[0] in metrics}


@pytest.mark.soak
def test_rows_repaired_by_a_mapping_and_a_rule_come_back_once_and_the_others_stay(night: Night) -> None:
    wrong = night("seen")
    ingest.run(wrong)
    clean.run(wrong)
    repaired = night("at", "wish")
    summary = reprocess(repaired)
    events = repaired.read(SILVER_INTERACTIONS).select("event_id", F.col("event_at").cast("string")).collect()
    assert {tuple(row) for row in events} == {
        ("w1", "2024-05-01 11:00:00"),
        ("w2", "2024-05-01 12:00:00"),
        ("w6", "2024-05-01 12:00:00"),
    }
    left = {tuple(row["reject_reasons"]): row["raw"] for row in repaired.read(SILVER_QUARANTINE).collect()}
    assert set(left) == {("unknown_event_type",), ("missing_user_id",)}
    assert '"event_at":"2024-05-01 12:00:00"' in left["missing_user_id",]
    assert counts(summary, "rows_in", "rows_good", "rows_quarantined", "rows_duplicate") == {
        ("rows_in", "interactions"): 5,
        ("rows_good", "interactions"): 2,
        ("rows_quarantined", "interactions"): 2,
        ("rows_duplicate", "interactions"): 1,
    }
    assert counts(summary, "repaired", "still_rejected") == {
        ("repaired", "interactions:missing_user_id"): 0,
        ("still_rejected", "interactions:missing_user_id"): 1,
        ("repaired", "interactions:unknown_event_type"): 1,
        ("still_rejected", "interactions:unknown_event_type"): 1,
        ("repaired", "interactions:unparsable_time"): 3,
        ("still_rejected", "interactions:unparsable_time"): 2,
    }


@pytest.mark.soak
def test_a_repair_killed_before_the_quarantine_and_run_again_ends_as_a_night_that_was_right_from_the_start(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, right = night("seen"), night("at", "wish", lake="other")
    for job in (wrong, right):
        ingest.run(job)
        clean.run(job)
    repaired = night("at", "wish")
    with monkeypatch.context() as broken:
        broken.setattr(Lake, "merge", stopping(Lake.merge, SILVER_QUARANTINE, after=False))
        with pytest.raises(KeyboardInterrupt):
            reprocess(repaired)
    assert len(rows_of(repaired.lake, SILVER_QUARANTINE)) == 5
    tables = (SILVER_QUARANTINE, SILVER_INTERACTIONS, BRONZE_INTERACTIONS)
    for rows_in, rows_out in ((5, 2), (2, 0)):
        summary = reprocess(repaired)
        assert (summary.rows_in, summary.rows_out) == (rows_in, rows_out)
        for table in tables:
            assert content(rows_of(repaired.lake, table)) == content(rows_of(right.lake, table))


@pytest.mark.soak
def test_repaired_rows_pass_the_gate_or_stay_where_they_are_and_a_lost_file_is_told(
    night: Night, tmp_path: Path
) -> None:
    wrong = night("seen")
    (tmp_path / "events.csv").write_text(EVENTS.replace(",i1,", ",i7,"), encoding="utf-8")
    ingest.run(wrong)
    clean.run(wrong)
    before = content(rows_of(wrong.lake, SILVER_QUARANTINE))
    with pytest.raises(QualityGateError, match="the repaired rows were not merged: .*unknown_item_share"):
        reprocess(night("at"))
    assert content(rows_of(wrong.lake, SILVER_QUARANTINE)) == before
    (tmp_path / "events.csv").unlink()
    summary = reprocess(night("at", unknown=1.0))
    assert (
        "web: none of 1 files lies unchanged where it was taken from, judged as bronze has it"
        in summary.notes
    )
    assert (summary.rows_in, summary.rows_out) == (5, 0)
    after = content(rows_of(wrong.lake, SILVER_QUARANTINE))
    reasons_before, reasons_after = (
        [json.loads(row)["reject_reasons"] for row in rows] for rows in (before, after)
    )
    assert reasons_after == reasons_before


def test_the_quarantine_is_told_by_reason_with_the_shape_of_what_is_personal(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))
    secret = json.dumps({"user_id": "Anna7", "item_id": "i1", "event_id": "Anna7/i1"})
    rows = [
        waiting(0, ["bad_value", "future_time"], secret),
        waiting(1, ["bad_value"], '{"item_id":"[red]x"}'),
        waiting(2, ["bad_value"], '{"item_id":"y"}', day=date(2024, 5, 2)),
        waiting(3, ["malformed_row"], "Anna;\u001b[2J;12"),
    ]
    lake.append(SILVER_QUARANTINE, rows_for(spark, SILVER_QUARANTINE, *rows))
    personal = {"web": ["user_id", "event_id"]}
    hidden = '{"user_id":"Aaaa9","item_id":"i1","event_id":"Aaaa9/a9"}'
    assert by_reason(lake, samples=2, personal=personal) == [
        Rejected("interactions", "web", "bad_value", 3, (hidden, '{"item_id":"[red]x"}')),
        Rejected("interactions", "web", "future_time", 1, (hidden,)),
        Rejected("interactions", "web", "malformed_row", 1, ("Aaaa;\\x1b[9A;99",)),
    ]
    [second] = by_reason(lake, samples=1, run_date=date(2024, 5, 2), is_masked=False)
    assert second == Rejected("interactions", "web", "bad_value", 1, ('{"item_id":"y"}',))
    assert [found.samples for found in by_reason(lake, samples=0)] == [(), (), ()]


def test_a_shape_keeps_what_a_format_fault_looks_like() -> None:
    assert shape("Ünï-42 @ß") == "Aaa-99 @a"
    assert masked('{"user_id":null,"item_id":"a"}', fields=["user_id"]) == '{"user_id":null,"item_id":"a"}'
    assert masked('["u1"]', fields=["user_id"]) == '["a9"]'
    assert masked('{"user_id":"a', fields=["user_id"]) == '{"aaaa_aa":"a'
