"""The way from delivered files to silver, beside what Spark takes to copy the same rows, in one run.

`bench_data.py` (1, 3 and 10 million rows) · `bench_data.py --rows 1000000`

Generated events: users and items drawn from power laws, most items of one of the user's two tastes, 60 days,
5 % of the rows delivered twice, 1 % with a fault. The copy reads the same Parquet files and writes one Delta
table: no rule, no order, no partition. Ours is the whole of two stages: ingest (hash, map, bronze) and clean
(judge, deduplicate, gate, merge into dated partitions). Then the last day is delivered once more, as large,
with a tenth of its events changed: `day s` is the two stages again, a merge into that date. Peak memory is of
driver, JVM and Python workers together.

The last line is JSON of the largest size; growth: how much more a row takes there than at the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from recsys_spark.config.load import conf_dir, load_settings
from recsys_spark.config.sections import Settings
from recsys_spark.data.gates import judge as quality
from recsys_spark.lake.job import Job
from recsys_spark.night import run_stage
from recsys_spark.runtime.memory import MemoryWatch
from recsys_spark.runtime.session import properties, start_session

RUN_DATE = date(2024, 3, 1)
DAYS, FIRST_DAY = 60, np.datetime64("2024-01-01")
ITEMS, CHUNK = 50_000, 1_000_000
REPEATED, SPOILT = 0.05, 0.01
TASTES, LIKED = 50, 0.7  # item i is of taste i % TASTES; this share of a user's events is of their own

# What every benchmark's night reads: where its lake lies, and the events.
EVENTS_CONF = """
[lake]
path = "{root}/lake"
[output]
path = "{root}/output"
[sources.events]
kind = "interactions"
format = "parquet"
path = "{root}/events"
[sources.events.columns]
event_id = "id"
user_id = "user"
item_id = "item"
event_type = "type"
event_at = "at"
quantity = "pieces"
value = "paid"
basket_id = "basket"
"""
ITEMS_CONF = """
[sources.items]
kind = "items"
format = "parquet"
path = "{root}/items.parquet"
columns = {{ item_id = "item", title = "title" }}
"""


def power_law(draw: np.random.Generator, size: int, among: int, exponent: float) -> np.ndarray:
    """`size` draws of 0 to among - 1, the first far more often than the last."""
    weights = np.arange(1, among + 1, dtype=np.float64) ** -exponent
    edges = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(edges, draw.random(size)), among - 1)


def tasteful(draw: np.random.Generator, user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """The items drawn, most of them changed for one about as popular that is of the user's taste."""
    taste = (user + TASTES // 3 * draw.integers(0, 2, user.size)) % TASTES
    liked = item - item % TASTES + taste
    return np.where((draw.random(user.size) < LIKED) & (liked < items), liked, item)


def events(draw: np.random.Generator, first: int, size: int, users: int, items: int = ITEMS) -> pa.Table:
    """Rows first to first + size; some repeat an earlier row of the chunk, some are spoilt."""
    number = np.arange(first, first + size)
    again = draw.random(size) < REPEATED
    again[0] = False
    source = np.where(again, draw.integers(0, size, size), np.arange(size))
    user = power_law(draw, size, users, 0.7)
    item = tasteful(draw, user, power_law(draw, size, items, 1.0), items)[source]
    user = user[source]
    seconds = (draw.integers(0, DAYS * 86_400, size))[source]
    kind = np.array(["view", "click", "cart", "purchase"])[
        np.searchsorted([0.6, 0.85, 0.95], draw.random(size))
    ][source]
    spoilt = draw.random(size) < SPOILT
    kind = np.where(spoilt, "wish", kind)
    return pa.table(
        {
            "id": np.char.add("e", number[source].astype(str)),
            "user": np.char.add("u", user.astype(str)),
            "item": np.char.add("i", item.astype(str)),
            "type": kind,
            "at": (FIRST_DAY + seconds.astype("timedelta64[s]")).astype("datetime64[us]"),
            "pieces": draw.integers(1, 4, size)[source],
            "paid": np.round(draw.gamma(2.0, 3.0, size)[source], 2),
            "basket": np.char.add(np.char.add(user.astype(str), "-"), (seconds // 86_400).astype(str)),
        }
    )


def deliver_events(root: Path, rows: int, *, users: int, items: int = ITEMS) -> None:
    draw = np.random.default_rng(rows)
    (root / "events").mkdir(parents=True)
    for first in range(0, rows, CHUNK):
        table = events(draw, first, min(CHUNK, rows - first), users, items)
        pq.write_table(table, root / "events" / f"part-{first // CHUNK:03d}.parquet")


def deliver_day_again(root: Path) -> int:
    """The events of the last of DAYS days once more, in a new file, each tenth at another price; how many."""
    first = FIRST_DAY + np.timedelta64(DAYS - 1, "D")
    parts = []
    for file in sorted((root / "events").glob("part-*.parquet")):
        table = pq.read_table(file)
        parts.append(
            table.filter(pc.greater_equal(table.column("at"), pa.scalar(first.astype("datetime64[us]"))))
        )
    day = pa.concat_tables(parts)
    paid = day.column("paid").to_numpy().copy()
    paid[::10] += 1.0
    changed = day.set_column(day.schema.get_field_index("paid"), "paid", pa.array(paid))
    pq.write_table(changed, root / "events" / "again.parquet")
    return changed.num_rows


def deliver(root: Path, rows: int) -> None:
    deliver_events(root, rows, users=max(rows // 20, 10))
    names = np.arange(ITEMS).astype(str)
    pq.write_table(
        pa.table({"item": np.char.add("i", names), "title": np.char.add("item ", names)}),
        root / "items.parquet",
    )


def settings_for(root: Path, conf: str) -> Settings:
    """The settings of base.toml with `conf`, whose {root} is the benchmark's folder."""
    folder = root / "conf"
    folder.mkdir()
    shutil.copy(conf_dir() / "base.toml", folder / "base.toml")
    (folder / "bench.toml").write_text(conf.format(root=root), encoding="utf-8")
    before = os.environ.get("RECSYS_CONF")
    os.environ["RECSYS_CONF"] = str(folder)
    try:
        return load_settings("bench")
    finally:
        if before is None:
            del os.environ["RECSYS_CONF"]
        else:
            os.environ["RECSYS_CONF"] = before


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def copied(spark: SparkSession, root: Path) -> float:
    target = str(root / "copy")
    seconds = timed(lambda: spark.read.parquet(str(root / "events")).write.format("delta").save(target))
    shutil.rmtree(target)
    return seconds


def measure(spark: SparkSession, rows: int) -> dict[str, float]:
    root = Path(tempfile.mkdtemp(prefix="recsys-bench-"))
    try:
        deliver(root, rows)
        copied(spark, root)
        copy = copied(spark, root)
        job = Job(spark, settings_for(root, EVENTS_CONF + ITEMS_CONF), RUN_DATE)
        quality.preload()  # as `recsys run` does before its first stage
        with MemoryWatch() as memory:
            ingest = timed(lambda: run_stage("ingest", job, memory))
            started = time.perf_counter()
            cleaned = run_stage("clean", job, memory)
            clean = time.perf_counter() - started
            again = deliver_day_again(root)
            day = timed(lambda: [run_stage(stage, job, memory) for stage in ("ingest", "clean")])
        return {
            "rows": rows,
            "copy": copy,
            "ingest": ingest,
            "clean": clean,
            "vs_copy": (ingest + clean) / copy,
            "silver_vs_copy": clean / copy,
            "day_rows": again,
            "day": day,
            "gx_share": cleaned.figures["gate_seconds", ""] / clean,
            "peak_gb": memory.peak_gb,
        }
    finally:
        shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    given = parser.parse_args()
    spark = start_session("bench-data", properties(conf_dir() / "spark-local.conf"))
    spark.range(10_000).write.format("noop").mode("overwrite").save()
    results = [measure(spark, rows) for rows in given.rows]
    print(
        f"{'rows':>12}{'copy s':>9}{'ingest s':>10}{'clean s':>9}{'/copy':>7}"
        f"{'silver/copy':>13}{'GX':>7}{'day rows':>11}{'day s':>7}{'GB':>6}"
    )
    for found in results:
        print(
            f"{found['rows']:>12,.0f}{found['copy']:>9.1f}{found['ingest']:>10.1f}{found['clean']:>9.1f}"
            f"{found['vs_copy']:>7.1f}{found['silver_vs_copy']:>13.1f}{found['gx_share']:>7.0%}"
            f"{found['day_rows']:>11,.0f}{found['day']:>7.1f}{found['peak_gb']:>6.1f}"
        )
    largest = results[-1]
    each = [(found["ingest"] + found["clean"]) / found["rows"] for found in results]
    largest["growth"] = each[-1] / each[0] - 1
    print(json.dumps({name: round(value, 3) for name, value in largest.items()}))


if __name__ == "__main__":
    main()
