"""A catalogue, users and audiences whose deliveries are all there is, by the stages of the night."""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.data.snapshots import versions_on
from recsys_spark.errors import QualityGateError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_PREFERENCES
from recsys_spark.push.audience import People, people_on
from recsys_spark.ranking.rankable import on_sale
from recsys_spark.stages import clean, ingest
from tests.conftest import ROOT
from tests.data.deliveries import KEYS
from tests.settings import a_source, demo_in

FIRST = date(2024, 5, 1)
SOURCES = {
    "events": ("interactions", KEYS | {"event_type": "what"}),
    "goods": ("items", {"item_id": "item", "title": "item"}),
    "people": ("users", {"user_id": "user", "is_consented": "yes"}),
    "members": ("audiences", {"audience": "list", "user_id": "user"}),
}


def job_on(spark: SparkSession, root: Path, day: int) -> Job:
    sources = {
        name: a_source(
            kind=kind, format="csv", path=f"{root}/{name}", columns=columns, snapshot=name != "events"
        )
        for name, (kind, columns) in SOURCES.items()
    }
    settings = demo_in(root, quality={"max_unknown_item_share": 1.0}, sources=sources)
    return Job(spark, settings, FIRST + timedelta(days=day))


def deliver(root: Path, source: str, day: int, header: str, *lines: str) -> None:
    path = root / source / f"{source}-{day}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    at = datetime.combine(FIRST + timedelta(days=day), datetime.min.time(), UTC) + timedelta(hours=3)
    os.utime(path, (at.timestamp(),) * 2)


def people(job: Job) -> People:
    nobody = job.read(SILVER_PREFERENCES)
    return people_on(job.lake, job.run_date, settings=job.settings, preferences=nobody)


def test_what_a_full_delivery_no_longer_has_is_withheld_and_a_part_of_one_is_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    def night(day: int) -> tuple[set[str], set[str], set[str]]:
        job = job_on(spark, tmp_path, day)
        ingest.run(job)
        clean.run(job)
        return seen(day)

    def seen(day: int) -> tuple[set[str], set[str], set[str]]:
        job = job_on(spark, tmp_path, day)
        items = on_sale(versions_on(job.lake, job.settings, "items", job.run_date), job.run_date)
        known = people(job)
        return tuple(  # type: ignore[return-value]
            {row[name] for row in rows.collect()}
            for rows, name in ((items, "item_id"), (known.users, "user_id"), (known.audiences, "user_id"))
        )

    deliver(tmp_path, "events", 0, "id,user,item,what,at", "e1,u0,i0,purchase,2024-05-01 01:00:00")
    deliver(tmp_path, "goods", 0, "item", *(f"i{n}" for n in range(6)))
    deliver(tmp_path, "people", 0, "user,yes", *(f"u{n},true" for n in range(4)))
    deliver(tmp_path, "members", 0, "list,user", *(f"vip,u{n}" for n in range(4)))
    whole = ({f"i{n}" for n in range(6)}, {f"u{n}" for n in range(4)}, {f"u{n}" for n in range(4)})
    assert night(0) == whole
    deliver(tmp_path, "goods", 1, "item", *(f"i{n}" for n in (0, 2, 3, 4, 5, 6)))
    deliver(tmp_path, "people", 1, "user,yes", *(f"u{n},true" for n in (0, 1, 2)))
    deliver(tmp_path, "members", 1, "list,user", *(f"vip,u{n}" for n in (1, 2, 3)))
    fewer = ({f"i{n}" for n in (0, 2, 3, 4, 5, 6)}, {"u0", "u1", "u2"}, {"u1", "u2", "u3"})
    assert night(1) == fewer
    assert seen(0) == whole
    # Two of six are a part of a catalogue; as it was on the first day it is whole.
    deliver(tmp_path, "goods", 2, "item", "i0", "i2")
    with pytest.raises(QualityGateError, match=r"silver\.items: .*snapshot_loss\) observed 0\.66"):
        night(2)
    assert seen(2) == fewer
    (tmp_path / "goods" / "goods-2.csv").unlink()
    deliver(tmp_path, "goods", 3, "item", *(f"i{n}" for n in range(6)))
    job = job_on(spark, tmp_path, 3)
    assert [note for note in ingest.run(job).notes if note.startswith("goods")] == []


def test_whatever_asks_what_holds_on_a_day_asks_for_what_is_there() -> None:
    """Silver by itself has what full deliveries no longer have: only `versions_on` leaves it out."""
    asking = re.compile(r"(?:current_on|on_sale|valid_on)\(\s*(?:job\.|lake\.|job\.lake\.)read\(")
    package = ROOT / "recsys_spark"
    assert [f"{path}" for path in package.rglob("*.py") if asking.search(path.read_text("utf-8"))] == []
