"""Spark's Python workers, which serve one task after the other."""

from __future__ import annotations

import gc
import sys
import threading
import zipimport
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from pyspark.sql import SparkSession


@cache
def warm_worker() -> None:
    """Have the process that this task runs in start its later tasks sooner; to be called by code of a task.

    Two things that Spark's worker does for every task cost more than our smaller tasks themselves:

    - It calls importlib.invalidate_caches, and up to Python 3.12 that reads the table of contents of
      pyspark.zip anew for each of its folders that something was imported from: 0.1 to 0.3 s. The files of an
      application do not change while it runs, so these tables are kept from here on.
    - It collects garbage, and walks some 100,000 objects of pandas, Arrow and numba: 50 ms. What has been
      imported so far is taken out of that.
    """
    if sys.version_info < (3, 13):
        zipimport.zipimporter.invalidate_caches = _keep_tables  # type: ignore[method-assign, assignment]
    gc.collect()
    gc.freeze()


def _keep_tables(_: zipimport.zipimporter) -> None:
    """In place of reading them again."""


def preload(spark: SparkSession) -> None:
    """Start the daemons of Python workers, and one worker each, in the background, before a task needs them.

    Spark keeps one daemon for functions on batches of Arrow and one for those on records. What they import
    takes three seconds of a core; the first stage's own waiting hides that.
    """
    threading.Thread(target=_start_workers, args=(spark,), daemon=True).start()


def _start_workers(spark: SparkSession) -> None:
    # Whatever fails here fails again in a task, which then says it; or the session has ended meanwhile.
    with suppress(Exception):
        spark.sparkContext.parallelize([0], 1).map(abs).count()
        spark.range(0, 1, 1, 1).mapInArrow(_unchanged, "id long").write.format("noop").mode("append").save()


def _unchanged(batches: Iterable[Any]) -> Iterable[Any]:
    return batches
