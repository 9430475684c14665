"""Settings for a while: inside they hold, afterwards the session has its own, whoever else sets any."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from pyspark.sql import SparkSession

from recsys_spark.runtime.session_settings import LARGE_BATCHES, session_settings

ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
UNSET = "parquet.enable.dictionary#some_column"


def test_inside_they_hold_and_afterwards_the_session_has_its_own(spark: SparkSession) -> None:
    own = spark.conf.get(ROWS)
    with session_settings(spark, {ROWS: "7", UNSET: "false"}):
        assert (spark.conf.get(ROWS), spark.conf.get(UNSET)) == ("7", "false")
        with session_settings(spark, LARGE_BATCHES):
            assert spark.conf.get(ROWS) == LARGE_BATCHES[ROWS]
        assert spark.conf.get(ROWS) == "7"
    assert (spark.conf.get(ROWS), spark.conf.get(UNSET, None)) == (own, None)


def test_a_fault_inside_leaves_none_of_them(spark: SparkSession) -> None:
    own = spark.conf.get(ROWS)
    with pytest.raises(ValueError, match="inside"), session_settings(spark, {ROWS: "7"}):
        raise ValueError("inside")
    assert spark.conf.get(ROWS) == own


def test_of_two_threads_neither_restores_what_the_other_set(spark: SparkSession) -> None:
    own, first_is_in, second_is_in, first_has_ended = spark.conf.get(ROWS), Event(), Event(), Event()

    def first() -> None:
        with session_settings(spark, {ROWS: "7"}):
            first_is_in.set()
            second_is_in.wait(0.3)  # it must not be, before this one has ended
        first_has_ended.set()

    def second() -> bool:
        first_is_in.wait(10)
        with session_settings(spark, {ROWS: "8"}):
            was_alone = first_has_ended.is_set()
            second_is_in.set()
            first_has_ended.wait(10)
        return was_alone

    with ThreadPoolExecutor(2) as threads:
        _, was_alone = threads.submit(first), threads.submit(second)
    assert (was_alone.result(), spark.conf.get(ROWS)) == (True, own)
