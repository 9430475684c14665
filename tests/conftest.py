"""One Spark session for the whole run, and tiny frames spread over several partitions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.sections import digest
from recsys_spark.runtime.rows import frame_of
from recsys_spark.runtime.session import properties, start_session
from tests.shop import FEW_ROWS, QUICK_JAVA

ROOT = Path(__file__).parents[1]
Frame = Callable[..., DataFrame]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for a session is marked; with TESTS_ORDER=SEED folders, files and tests come in another order."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")
    if seed := os.environ.get("TESTS_ORDER"):
        # Folders whole, and files whole within them: what they share is made once in any order.
        items.sort(key=lambda item: [digest((seed, part)) for part in _places(item)])


def _places(item: pytest.Item) -> list[str]:
    """The item's folder, file and name, each with all that is above it."""
    folder = str(item.path.parent)
    return [folder, str(item.path), item.nodeid]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    scratch: Path = tmp_path_factory.mktemp("spark")
    session = start_session(
        "recsys-tests",
        {
            **properties(ROOT / "conf" / "spark-local.conf"),
            "spark.driver.memory": "2g",
            "spark.driver.extraJavaOptions": QUICK_JAVA,
            **dict(line.split() for line in FEW_ROWS.strip().splitlines()),
            "spark.sql.shuffle.partitions": "2",
            "spark.local.dir": str(scratch),
        },
    )
    session.sparkContext.setCheckpointDir(str(scratch / "checkpoints"))
    yield session
    session.stop()


@pytest.fixture
def frame(spark: SparkSession) -> Frame:
    """`frame(schema, rows)`: a frame over three partitions, so that nothing may lean on order."""

    def make(schema: Any, rows: list[tuple[Any, ...]], partitions: int = 3) -> DataFrame:
        return frame_of(spark, rows, schema).repartition(partitions)

    return make
