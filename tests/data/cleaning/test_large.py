"""A large delivery is written before it is judged as a whole: the tables are those of a small one, at any end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.data.cleaning import batch
from recsys_spark.data.cleaning.clean import deduplicate
from recsys_spark.data.sources import rows_by_file
from recsys_spark.errors import QualityGateError, RecsysError
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import delivered_files
from recsys_spark.lake.staged import PART, take_in, write_beside
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import (
    BRONZE_INTERACTIONS,
    SILVER_INTERACTIONS,
    SILVER_PREFERENCES,
    SILVER_QUARANTINE,
    Table,
)
from recsys_spark.stages import clean, ingest
from tests.data.deliveries import KEYS, events_in, stopped
from tests.settings import demo_in
from tests.tables import content, rows_for, rows_of

DAY = date(2024, 5, 3)
TABLES = (BRONZE_INTERACTIONS, SILVER_INTERACTIONS, SILVER_QUARANTINE)
FILES = {
    # e1 twice, e2 again under another date in the other file, one without a user, one of an unknown type
    "a b#1.csv": """id,user,item,what,at,pieces
e1,u1,i1,purchase,2024-05-01 11:00:00,1
e1,u1,i1,purchase,2024-05-01 11:00:00,1
e2,u2,i1,purchase,2024-05-01 12:00:00,2
e3,,i1,purchase,2024-05-02 12:00:00,1
e4,u2,i2,"wi,sh",2024-05-02 12:00:00,1
""",
    "more/b.csv": """id,user,item,what,at,pieces
e2,u2,i1,purchase,2024-05-02 12:00:00,3
e5,u2,i2,view,2024-05-02 13:00:00.25,
e6,u3,i2,purchase,2024-05-02 12:00:00,-2
""",
}


def job_in(spark: SparkSession, root: Path, *, large_batch_rows: int, rejected: float = 0.5) -> Job:
    for number, (name, text) in enumerate(FILES.items()):
        path = root.parent / "events" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1714700000.125 + number,) * 2)
    columns = KEYS | {"event_type": "what", "quantity": "pieces"}
    settings = demo_in(
        root,
        lake={"large_batch_rows": large_batch_rows},
        quality={"max_rejected_share": rejected, "max_unknown_item_share": 1.0},
        sources={"web": events_in(root.parent / "events", columns=columns)},
    )
    return Job(spark, settings, DAY)


def require_same(tables: Sequence[Table], one: Lake, other: Lake) -> None:
    for table in tables:
        assert content(rows_of(one, table)) == content(rows_of(other, table))


def left_behind(lake: Lake, table: Table) -> list[str]:
    """The files under the table's folder that no reader sees."""
    folder = Path(lake.path(table))
    uris = DeltaTable(f"{folder}").file_uris() if lake.exists(table) else []
    named = {f"{Path(uri).relative_to(folder)}" for uri in uris}
    files = {f"{path.relative_to(folder)}" for path in folder.rglob("*.parquet")}
    logs = {f"{path.relative_to(folder)}" for path in folder.glob("batch-*/_delta_log")}
    return sorted((files | logs) - named)


def test_a_large_delivery_ends_in_the_tables_of_a_small_one(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_TWINS", 2.0)
    small = job_in(spark, tmp_path / "small", large_batch_rows=1_000_000)
    large = job_in(spark, tmp_path / "large", large_batch_rows=1)
    figures = []
    for job in (small, large):
        taken = ingest.run(job)
        assert taken.rows_out == 8
        figures.append(
            {key: value for key, value in clean.run(job).figures.items() if "seconds" not in key[0]}
        )
    assert figures[0] == figures[1]
    assert figures[1]["rows_duplicate", "interactions"] == 2
    require_same(TABLES, large.lake, small.lake)
    assert [left_behind(large.lake, table) for table in TABLES] == [[], [], []]
    assert len(rows_of(large.lake, SILVER_INTERACTIONS)) == 4
    written, known = delivered_files(large.lake), delivered_files(small.lake)
    assert written == known
    assert {Path(file.file).name for file in written} == {"a%20b%231.csv", "b.csv"}
    # A point in time is one whatever zone a reader's session is in.
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    try:
        moments = [
            {
                row["at"]
                for row in job.read(BRONZE_INTERACTIONS)
                .select(F.unix_millis("delivered_at").alias("at"))
                .collect()
            }
            for job in (small, large)
        ]
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)
    assert moments[0] == moments[1] == {1714700000125, 1714700001125}
    bounds = DeltaTable(large.lake.path(SILVER_INTERACTIONS)).get_add_actions(flatten=True)
    least = {name: min(filter(None, bounds.column(f"min.{name}").to_pylist())) for name in ("quantity",)}
    assert least == {"quantity": -2.0}
    assert "web: nothing new" in ingest.run(large).notes


def test_a_large_batch_without_a_twin_or_a_rejected_row_leaves_none_to_wait(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FILES, "a b#1.csv")
    small, large = (job_in(spark, tmp_path / f"{rows}", large_batch_rows=rows) for rows in (1_000_000, 1))
    for job in (small, large):
        assert (ingest.run(job).rows_out, clean.run(job).rows_out) == (3, 3)
    require_same([SILVER_INTERACTIONS], large.lake, small.lake)
    assert left_behind(large.lake, SILVER_INTERACTIONS) == []


def twice(rows: DataFrame, **named: object) -> DataFrame:
    once = deduplicate(rows, "interactions", **named)  # type: ignore[arg-type]
    return once.unionByName(once.where("event_id = 'e1'"))


def test_what_a_gate_refuses_or_a_count_misses_leaves_no_file(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(rows: DataFrame, **named: object) -> DataFrame:
        return rows_by_file(rows, **named).where("event_id <> 'e5'")  # type: ignore[arg-type]

    job = job_in(spark, tmp_path / "large", large_batch_rows=1, rejected=0.01)
    with monkeypatch.context() as broken:
        broken.setattr(ingest, "rows_by_file", losing)
        with pytest.raises(RecsysError, match="'web': 8 rows were counted and 7 written to bronze.interact"):
            ingest.run(job)
    assert left_behind(job.lake, BRONZE_INTERACTIONS) == []
    for name in ("take_in", "files_of_first_commit"):
        with monkeypatch.context() as broken:
            broken.setattr(Lake, name, stopped)
            with pytest.raises(KeyboardInterrupt):
                ingest.run(job)
        assert left_behind(job.lake, BRONZE_INTERACTIONS) == []
    ingest.run(job)
    monkeypatch.setattr(batch, "MOST_TWINS", 2.0)
    with monkeypatch.context() as broken:
        broken.setattr(batch, "added_up", stopped)
        with pytest.raises(KeyboardInterrupt):
            clean.run(job)
    assert left_behind(job.lake, SILVER_INTERACTIONS) == []
    with monkeypatch.context() as broken:
        broken.setattr(batch, "deduplicate", lambda rows, *_, **named: twice(rows, **named))
        with pytest.raises(
            RecsysError, match="5 good, 2 rejected and 2 duplicate rows of 8 in bronze: .* twice"
        ):
            clean.run(job)
    assert left_behind(job.lake, SILVER_INTERACTIONS) == []
    with pytest.raises(QualityGateError, match="rejected"):
        clean.run(job)
    assert left_behind(job.lake, SILVER_INTERACTIONS) == []
    assert job.read(SILVER_INTERACTIONS).isEmpty()


def test_a_lake_of_an_earlier_version_keeps_its_partitions(spark: SparkSession, tmp_path: Path) -> None:
    job = job_in(spark, tmp_path / "large", large_batch_rows=1)
    clock = datetime(2024, 5, 2, tzinfo=UTC)
    file = {"source": "web", "source_file": "old.csv", "row": 0, "content_hash": "h"}
    file |= {"ingest_date": date(2024, 5, 2), "delivered_at": clock, "ingested_at": clock}
    old = rows_for(spark, BRONZE_INTERACTIONS, file)
    old.write.format("delta").partitionBy("ingest_date").save(job.lake.path(BRONZE_INTERACTIONS))
    assert ingest.run(job).rows_out == 8
    assert job.lake.partition_columns(BRONZE_INTERACTIONS) == ("ingest_date",)
    assert {Path(file.file).name for file in delivered_files(job.lake)} == {
        "old.csv",
        "a%20b%231.csv",
        "b.csv",
    }


def test_where_delta_maps_columns_a_large_delivery_ends_in_the_same_tables(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_TWINS", 2.0)

    def taken(name: str) -> list[list[str]]:
        job = job_in(spark, tmp_path / name, large_batch_rows=1)
        assert (ingest.run(job).rows_out, clean.run(job).rows_out) == (8, 4)
        assert "web: nothing new" in ingest.run(job).notes
        tables = [job.read(table).drop("ingested_at") for table in TABLES]
        return [sorted(repr(row) for row in rows.collect()) for rows in tables]

    plain = taken("plain")
    mapping = "spark.databricks.delta.properties.defaults.columnMapping.mode"
    spark.conf.set(mapping, "name")
    try:
        assert taken("mapped") == plain
        mapped = job_in(spark, tmp_path / "mapped", large_batch_rows=1).lake
        assert not mapped.is_as_declared(SILVER_INTERACTIONS)
        assert not mapped.is_as_declared(SILVER_PREFERENCES), "it would be made so"
        made_before = job_in(spark, tmp_path / "plain", large_batch_rows=1).lake
        assert made_before.is_as_declared(SILVER_INTERACTIONS)
    finally:
        spark.conf.unset(mapping)


def preferences(spark: SparkSession) -> DataFrame:
    rows = rows_for(spark, SILVER_PREFERENCES, {"user_id": "u", "item_id": "i"})
    return rows.drop("run_date").withColumn(PART, F.lit("x"))


def test_files_that_a_table_names_or_named_are_never_deleted_and_abandoned_ones_are_a_day_later(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, table = Lake(spark, str(tmp_path)), SILVER_PREFERENCES
    folder, partition = Path(lake.path(table)), {"x": {"run_date": DAY}}
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda now=time.time: now() - 90_000)
        closed, ended, removed, killed = (write_beside(lake, table, preferences(spark)) for _ in range(4))
    for one in (closed, ended, removed):
        take_in((one, partition))
        one.is_taken = False  # as where something is raised right after the commit
    closed.close()
    assert not (folder / closed.folder / "_delta_log").exists()
    lake.delete(table, "true")
    take_in((ended, partition))  # once more, so that one is named and the other is of an earlier version
    young = write_beside(lake, table, preferences(spark))
    folders = {path.name for path in folder.glob("batch-*")}
    assert folders == {closed.folder, ended.folder, removed.folder, young.folder}
    assert killed.folder not in folders
    assert [path.parent.name for path in folder.glob("batch-*/_delta_log")] == [young.folder]
    assert [row["run_date"] for row in lake.read(table).collect()] == [DAY]
    assert [lake.read(table, version=version).count() for version in (1, 2, 3)] == [1, 2, 3]


def test_rows_of_one_date_are_shared_by_tasks_where_the_table_has_dates_already(spark: SparkSession) -> None:
    rows = spark.range(200).select(F.xxhash64("id").alias("row_hash"), F.lit(DAY).alias(PART))
    for buckets, tasks in ((1, 1), (2, 2)):
        spread = batch.Spread(8, buckets, 2).by_date(rows)
        assert spread.select(F.spark_partition_id()).distinct().count() == tasks


def test_a_task_writes_the_rows_of_one_date_or_of_none(spark: SparkSession) -> None:
    part = F.when(F.col("id") % 5 > 0, F.date_add(F.lit(DAY), (F.col("id") % 60).cast("int")))
    rows = spark.range(3_000).select(F.xxhash64("id").alias("row_hash"), part.alias(PART))
    spread = batch.Spread.of(10_000_000, cores=2, buckets=1).by_date(rows)
    dates = spread.groupBy(F.spark_partition_id()).agg(
        F.count_distinct(PART).alias("dates"), F.count_if(F.col(PART).isNull()).alias("dateless")
    )
    found = dates.collect()
    assert sorted(row["dates"] for row in found) == [0] * 6 + [1] * 48
    assert sum(row["dateless"] for row in found if row["dates"] == 0) == 600


def test_a_batch_must_have_the_types_of_its_table(spark: SparkSession, tmp_path: Path) -> None:
    changes: list[Callable[[DataFrame], DataFrame]] = [
        lambda rows: rows.withColumn("events", F.lit("1")),
        lambda rows: rows.drop("strength"),
        lambda rows: rows.drop(PART),
    ]
    for change in changes:
        with pytest.raises(TypeError, match=r"silver\.preferences: missing="):
            write_beside(Lake(spark, str(tmp_path)), SILVER_PREFERENCES, change(preferences(spark)))
    assert not Path(tmp_path / "silver").exists()
