"""Unsubscribes that match nobody: told by the stage, judged by the gate, and matched once their user comes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import OPS_METRICS, OPS_QUALITY, SILVER_OUTCOMES, SILVER_PREFERENCES
from recsys_spark.night import guarded, run_night, stages_between
from recsys_spark.push.audience import audience_of, people_on
from tests.conftest import ROOT
from tests.shop import write_conf

DAY = date(2024, 5, 3)
EVENTS = "id,user,item,at,pieces\ne1,u1,i1,2024-05-01 10:00:00,1\n"
CAMPAIGN = "fresh"  # of channel email, for everyone


def write_unsubscribes(path: Path, *, known: int, unknown: int) -> None:
    rows = [(f"k{number}", " U1 ", "E-Mail") for number in range(known)]
    rows += [(f"n{number}", "u2", "email") for number in range(unknown)]
    lines = [
        {"id": name, "night": "2024-05-01", "list": "fresh", "to": to, "what": "unsubscribe"}
        | {"at": "2024-05-02 10:00:00", "way": way, "product": ""}
        for name, to, way in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_unsubscribes_that_match_nobody_are_told_and_stop_a_batch_of_many(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "events.csv").write_text(EVENTS, encoding="utf-8")
    (shop / "items.jsonl").write_text('{"sku": "i1", "name": "t", "kind": "k", "maker": "m"}\n', "utf-8")
    (shop / "users.csv").write_text("user,group,consent\nu1,g,true\n", encoding="utf-8")

    def run(**quality: float) -> int:
        thresholds = "".join(f"{name} = {value}\n" for name, value in quality.items())
        extra = f"\n[quality]\n{thresholds}"
        sources = ("events", "items", "users", "outcomes")
        conf = write_conf(tmp_path / "conf", base=ROOT / "conf", shop=shop, root=tmp_path, sources=sources)
        overlay = (conf / "slice.toml").read_text("utf-8")
        overlay = overlay.replace('constants = { channel = "email" }\n', "")
        overlay = overlay.replace('event_id = "id"\nrun_date', 'event_id = "id"\nchannel = "way"\nrun_date')
        (conf / "slice.toml").write_text(overlay + extra, "utf-8")
        monkeypatch.setenv("RECSYS_CONF", str(conf))

        def action() -> None:
            run_night(load_settings("slice"), DAY, stages_between("ingest", "clean"), spark=spark)

        return guarded(action)

    write_unsubscribes(shop / "outcomes.jsonl", known=10, unknown=11)
    assert run() == 3
    told = capsys.readouterr().err
    assert "silver.outcomes: expect_column_max_to_be_between(unmatched_unsubscribe_share)" in told
    assert "observed 0.5238, allowed <= 0.5" in told
    assert run(min_unsubscribes=22) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("clean"))
    assert "11 unsubscribes match nobody: 11 of no known user, 0 on a channel of no campaign" in line
    job = Job(spark, load_settings("slice"), DAY)
    kept = job.read(OPS_QUALITY).where("column_name = 'unmatched_unsubscribe_share'").orderBy("recorded_at")
    assert [(row["observed"], row["is_success"]) for row in kept.collect()] == [
        ("0.5238", False),
        ("0.5238", True),
    ]
    counted = job.read(OPS_METRICS).where("label = 'outcomes.unmatched_unsubscribes'").collect()
    assert [row["value"] for row in counted] == [11]
    assert job.read(SILVER_OUTCOMES).count() == 21

    def sendable() -> dict[str, bool]:
        people = people_on(job.lake, DAY, settings=job.settings, preferences=job.read(SILVER_PREFERENCES))
        rows = audience_of(job.settings.campaigns[CAMPAIGN], people).collect()
        return {row["user_id"]: row["is_sendable"] for row in rows}

    assert sendable() == {"u1": False}
    # Nothing is lost by being early: who was unknown is known from the next delivery of users on.
    (shop / "users.csv").write_text("user,group,consent\nu1,g,true\nu2,g,true\nu3,g,true\n", encoding="utf-8")
    assert run() == 0
    assert sendable() == {"u1": False, "u2": False, "u3": True}
