"""A whole night on generated data: where its time goes, and whether it keeps its limits.

`bench_night.py` (500,000 users, 50,000 items, 10 million events) · `bench_night.py --users 20000`

The limits, on 2 cores: 12 minutes from the session's start to the report, 10 GB at the peak of driver, JVM
and Python workers together. Stages, order and settings are those of `recsys run` in local mode with
conf/spark-local.conf; what differs is printed. Events are those of bench_data.py; items have titles of their
taste's words, a category and a brand; everyone gets a list of 20 new items, a tenth of the users also one of
20 that may repeat. ALS has rank 64. Each stage counts its own peak memory, and the cores that the machine
kept busy meanwhile, so nothing else should run on it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from bench_data import EVENTS_CONF, RUN_DATE, TASTES, deliver_events, power_law, settings_for

from recsys_spark.config.load import conf_dir
from recsys_spark.config.sections import Settings
from recsys_spark.evaluation.report.gather import make_report
from recsys_spark.lake.job import Job, Summary
from recsys_spark.names import STAGES
from recsys_spark.night import run_stage
from recsys_spark.runtime.memory import MemoryWatch
from recsys_spark.runtime.session import properties, start_session
from recsys_spark.runtime.workers import preload

MINUTES, GB = 12.0, 10.0
REGULARS = 10  # one user in so many also gets the list that may repeat
BRANDS, WORDS = 200, 60

CONF = """
[sources.items]
kind = "items"
format = "parquet"
path = "{root}/items.parquet"
columns = {{ item_id = "item", title = "title", category = "category", brand = "brand" }}
[sources.users]
kind = "users"
format = "parquet"
path = "{root}/users.parquet"
columns = {{ user_id = "user", segment = "segment", country = "country", is_consented = "consented" }}
[sources.regulars]
kind = "audiences"
format = "parquet"
path = "{root}/regulars.parquet"
columns = {{ audience = "audience", user_id = "user" }}
[campaigns.something_new]
channel = "push"
k = 20
repeat_allowed = false
[campaigns.staples]
channel = "push"
audience = "regulars"
k = 20
repeat_allowed = true
"""
# What the night sets for its size: the fast trainer, and exports only, since half a million mails are not
# rendered. Heap and partitions are for 10 million events.
OWN_CONF = """[als]
rank = 64
trainer = "cg"
[delivery]
formats = ["jsonl"]
"""
OWN_SPARK = {"spark.driver.memory": "5g", "spark.sql.shuffle.partitions": "16"}


@dataclass(frozen=True)
class Part:
    """One line of the table, and what the work gave: of a stage its Summary."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_gb: float
    result: Any


def named(prefix: str, numbers: np.ndarray) -> np.ndarray:
    return np.char.add(prefix, numbers.astype(str))


def item_table(draw: np.random.Generator, items: int) -> pa.Table:
    """Titles of a brand and three words, mostly those of the item's taste."""
    number = np.arange(items)
    taste, brand = number % TASTES, named("brand", draw.integers(0, BRANDS, items))
    title = brand
    for _ in range(3):
        of = np.where(draw.random(items) < 0.8, taste, TASTES)
        word = np.char.add(named("t", of), named("w", power_law(draw, items, WORDS, 0.5)))
        title = np.char.add(np.char.add(title, " "), word)
    return pa.table(
        {"item": named("i", number), "title": title, "category": named("category ", taste), "brand": brand}
    )


def user_table(draw: np.random.Generator, users: int) -> pa.Table:
    return pa.table(
        {
            "user": named("u", np.arange(users)),
            "segment": named("segment ", draw.integers(0, 5, users)),
            "country": np.array(["AT", "DE", "FR"])[draw.integers(0, 3, users)],
            "consented": draw.random(users) < 0.95,
        }
    )


def deliver(root: Path, users: int, items: int, events: int) -> None:
    """The files of events, items, users and audience, in the benchmark's folder."""
    deliver_events(root, events, users=users, items=items)
    draw = np.random.default_rng(users)
    regular = named("u", np.arange(0, users, REGULARS))
    tables = {
        "items": item_table(draw, items),
        "users": user_table(draw, users),
        "regulars": pa.table({"audience": ["regulars"] * regular.size, "user": regular}),
    }
    for name, table in tables.items():
        pq.write_table(table, root / f"{name}.parquet")


def cpu_seconds() -> float:
    """CPU time so far of the whole machine: of processes that have ended no one else tells it reliably."""
    busy = psutil.cpu_times()
    return float(busy.user + busy.nice + busy.system)


def measured(name: str, work: Callable[[MemoryWatch], Any]) -> Part:
    with MemoryWatch() as memory:
        began, cpu = time.perf_counter(), cpu_seconds()
        result = work(memory)
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    return Part(name, seconds, cpu, memory.peak_gb, result)


def night(root: Path, settings: Settings, spark_conf: Mapping[str, str]) -> list[Part]:
    """The night from the session's start to the report, in parts."""
    session = measured("session", lambda _: start_session("bench-night", spark_conf))
    spark = session.result
    spark.sparkContext.setCheckpointDir(str(root / "lake" / "_checkpoints"))
    preload(spark)  # as `recsys run` does
    stages = [measured(stage, partial(run_stage, stage, Job(spark, settings, RUN_DATE))) for stage in STAGES]
    return [session, *stages, measured("report", lambda _: make_report(Job(spark, settings, RUN_DATE)))]


def told(parts: Sequence[Part]) -> dict[str, float]:
    """Print the table and the verdict on both limits; the figures for the line of JSON."""
    total, peak_gb = sum(part.seconds for part in parts), max(part.peak_gb for part in parts)
    print(f"\n{'':<14}{'seconds':>9}{'share':>7}{'cores':>7}{'rows in':>13}{'rows out':>13}{'peak GB':>9}")
    for part in parts:
        is_stage = isinstance(part.result, Summary)
        rows = (f"{part.result.rows_in:,}", f"{part.result.rows_out:,}") if is_stage else ("", "")
        print(
            f"{part.name:<14}{part.seconds:>9.1f}{part.seconds / total:>7.0%}"
            f"{part.cpu_seconds / part.seconds:>7.1f}{rows[0]:>13}{rows[1]:>13}{part.peak_gb:>9.1f}"
        )
    cores = sum(part.cpu_seconds for part in parts) / total
    print(f"{'night':<14}{total:>9.1f}{1:>7.0%}{cores:>7.1f}{'':>26}{peak_gb:>9.1f}\n")
    for found, limit, unit in ((total / 60, MINUTES, "minutes"), (peak_gb, GB, "GB at the peak")):
        print(f"{found:.1f} {unit}, at most {limit:g}: {'met' if found <= limit else 'NOT MET'}")
    return {"minutes": total / 60, "peak_gb": peak_gb, **{part.name: part.seconds for part in parts}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=10_000_000)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="recsys-bench-night-"))
    spark_conf = {
        **properties(conf_dir() / "spark-local.conf"),
        **OWN_SPARK,
        "spark.local.dir": f"{root}/spark",
    }
    print(f"{given.users:,} users, {given.items:,} items, {given.events:,} events")
    print(f"beside base.toml: {' '.join(OWN_CONF.split())}")
    print(f"beside spark-local.conf: {', '.join(' = '.join(one) for one in OWN_SPARK.items())}")
    try:
        deliver(root, given.users, given.items, given.events)
        figures = told(night(root, settings_for(root, EVENTS_CONF + CONF + OWN_CONF), spark_conf))
    finally:
        shutil.rmtree(root)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
