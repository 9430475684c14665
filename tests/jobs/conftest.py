"""One night of the made-up shop, run once and looked at by many tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.lake.job import Job
from recsys_spark.night import run_night
from tests.conftest import ROOT
from tests.shop import DONE, RUN_DATE, Shop, open_shop, shared_night, write_conf


@dataclass(frozen=True)
class Night:
    """A finished night: its shop, its conf folder and the job to look through."""

    shop: Shop
    conf: Path
    job: Job


@pytest.fixture(scope="package")  # its configuration is no business of other folders' tests
def night(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    root = shared_night() or tmp_path_factory.mktemp("night")
    shop = open_shop(root / "shop")
    conf = write_conf(root / "conf", base=ROOT / "conf", shop=shop.folder, root=root)
    patch = pytest.MonkeyPatch()
    patch.setenv("RECSYS_CONF", str(conf))
    settings = load_settings("slice")
    state = "broken"
    try:
        run_night(settings, date.fromisoformat(RUN_DATE), spark=spark)
        state = "whole"
    finally:
        (root / DONE).write_text(state)
    yield Night(shop, conf, Job(spark, settings, date.fromisoformat(RUN_DATE)))
    patch.undo()
