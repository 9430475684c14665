"""A Spark session on standalone workers of one core each, for benchmarks that compare one with several."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from pyspark.sql import SparkSession

from recsys_spark.lake.session import start_session

ROOT = Path(__file__).resolve().parents[1]


def pin(pid: int, core: int) -> None:
    """Keep a worker, and the executors that it will start, on one core: JVM and Python would take two."""
    worker = psutil.Process(pid)
    for process in [worker, *worker.children(recursive=True)]:
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {core})


@contextmanager
def workers(folder: Path, n: int, *, memory: str, conf: Mapping[str, str]) -> Iterator[SparkSession]:
    """A session on n workers, each on a core of its own with `memory`, stopped with them afterwards.

    What both sides see lies in folder/shared; the workers see neither this checkout nor folder/driver.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    from cluster import down, up  # noqa: PLC0415  # of scripts/

    url = up(folder, workers=n, cores=1, memory=memory, visible=False)
    before = os.environ.get("PYSPARK_PYTHON")
    try:
        for core, number in zip(sorted(os.sched_getaffinity(0)), range(n), strict=False):
            pin(int((folder / "pids" / f"worker-{number + 1}.pid").read_text()), core)
        package = shutil.make_archive(str(folder / "driver" / "package"), "zip", ROOT, "recsys_spark")
        os.environ["PYSPARK_PYTHON"] = str(folder / "env/bin/python")  # the workers' own
        active = SparkSession.getActiveSession()
        if active is not None:
            active.stop()
        on_workers = {
            "spark.master": url,
            "spark.executor.cores": "1",
            # Tasks placed on the first executor alone would keep their blocks there.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.cores.max": str(n),
        }
        spark = start_session("bench on workers", {**conf, **on_workers})
        try:
            spark.sparkContext.addPyFile(package)
            yield spark
        finally:
            spark.stop()
    finally:
        os.environ.pop("PYSPARK_PYTHON", None)
        if before is not None:
            os.environ["PYSPARK_PYTHON"] = before
        down(folder)
