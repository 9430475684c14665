"""What a worker's first task leaves behind for the tasks that follow it."""

from __future__ import annotations

import gc
import importlib
import sys
import zipimport
from collections.abc import Iterable, Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from pyspark.sql import SparkSession

from recsys_spark.runtime.batches import gathered
from recsys_spark.runtime.workers import warm_worker


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python reads a zip's table anew only when it must")
def test_a_settled_worker_keeps_the_tables_of_its_zips_and_collects_no_modules(
    spark: SparkSession, tmp_path: Path
) -> None:
    archive = tmp_path / "code.zip"
    with ZipFile(archive, "w") as into:
        into.writestr("found_in_a_zip.py", "answer = 42")

    def settled(_: Iterable[int]) -> Iterator[tuple[list[str], int]]:
        finder = zipimport.zipimporter(str(archive))
        warm_worker()
        archive.unlink()  # whoever reads its table now finds none
        sys.path_importer_cache[str(archive)] = finder
        importlib.invalidate_caches()
        yield sorted(finder._files), gc.get_freeze_count()

    [(names, frozen)] = spark.sparkContext.parallelize([1], 1).mapPartitions(settled).collect()
    assert names == ["found_in_a_zip.py"]
    assert frozen > 10_000


def test_ranking_warms_the_worker_it_runs_in(spark: SparkSession) -> None:
    def ranked(_: Iterable[int]) -> Iterator[int]:
        warm_worker.cache_clear()
        gc.unfreeze()
        list(gathered([], 1))
        yield gc.get_freeze_count()

    [frozen] = spark.sparkContext.parallelize([1], 1).mapPartitions(ranked).collect()
    assert frozen > 10_000
