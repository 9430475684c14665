"""A Spark session on standalone workers of one core each, for benchmarks that compare one with several."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from pyspark.sql import SparkSession

from recsys_spark.runtime.session import start_session

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

    What both sides see lies in folder/shared. This checkout and folder/driver, where all that the driver
    writes for itself lies, are hidden from the workers; where the kernel lets us hide nothing, it says so.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    from cluster import can_hide, down, up  # noqa: PLC0415  # of scripts/

    url = up(folder, workers=n, cores=1, memory=memory, visible=False)
    before = {name: os.environ.get(name) for name in ("PYSPARK_PYTHON", "TMPDIR")}
    own = folder / "driver"
    (own / "tmp").mkdir()
    try:
        for core, number in zip(sorted(os.sched_getaffinity(0)), range(n), strict=False):
            pin(int((folder / "pids" / f"worker-{number + 1}.pid").read_text()), core)
        package = shutil.make_archive(str(own / "package"), "zip", ROOT, "recsys_spark")
        os.environ["PYSPARK_PYTHON"] = str(folder / "env/bin/python")  # the workers' own
        os.environ["TMPDIR"] = str(own / "tmp")
        tempfile.tempdir = None  # it has been read already
        active = SparkSession.getActiveSession()
        if active is not None:
            active.stop()
        on_workers = {
            "spark.master": url,
            "spark.executor.cores": "1",
            # Tasks placed on the first executor alone would keep their blocks there.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.cores.max": str(n),
            "spark.local.dir": str(own / "local"),
        }
        spark = start_session("bench on workers", {**conf, **on_workers})
        try:
            spark.sparkContext.addPyFile(package)
            say_what_workers_see(spark, own / "tmp", is_hidden=can_hide())
            yield spark
        finally:
            spark.stop()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None
        down(folder)


def say_what_workers_see(spark: SparkSession, folder: Path, *, is_hidden: bool) -> None:
    """Ask them for the driver's temporary folder. SystemExit: they see it although it is hidden."""
    sought, tasks = str(folder), spark.sparkContext.defaultParallelism
    seen = spark.sparkContext.parallelize(range(tasks), tasks).map(lambda _: os.path.exists(sought)).collect()  # noqa: PTH110  # of a worker
    if is_hidden and any(seen):
        raise SystemExit(f"the workers see the driver's {sought}, which should be hidden from them")
    if not any(seen):
        print("workers and driver share no folder but that of the files read and written", flush=True)
    else:
        print("*** NOT HIDDEN: no mount namespace here, so workers see the driver's folders too.", flush=True)
        print("*** This run does not prove that they could do without.", flush=True)
