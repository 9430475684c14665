"""Dense indexes: the rank of the sorted ids, whatever the partitions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from recsys_spark.data.ids import MAX_IDS, dense_index, require_indexable
from recsys_spark.errors import InputError
from tests.conftest import Frame

# Binary order is not that of letters: capitals first, NUL before all, emoji after all.
ODD = [
    "",
    "\u0000",
    "a\u0000",
    "a",
    "a ",
    "A",
    "Z",
    "é",
    "e\u0301",
    "10",
    "9",
    "ß",
    "\ufffd",
    "😀",
    "😀a",
    "中",
]


@pytest.fixture
def many_partitions(spark: SparkSession) -> Iterator[None]:
    """Without this, adaptive execution would make one partition of so few ids."""
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
    yield
    spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")


def test_indexes_are_the_ranks_of_the_sorted_ids_for_any_partitioning(
    frame: Frame, many_partitions: None
) -> None:
    ids = [*ODD, *(f"u{n}" for n in range(100)), *(chr(0x1F600 + n) for n in range(60))]
    expected = {value: rank for rank, value in enumerate(sorted(set(ids), key=str.encode))}
    repeated = [(value,) for value in ids + ids[::3]]
    for rows, partitions in ((repeated, 1), (repeated[::-1], 7)):
        indexed = dense_index(frame("id string", rows, partitions), id_column="id", index_column="place")
        found = indexed.collect()
        assert indexed.schema["place"].dataType.typeName() == "integer"
        assert len(found) == len(expected)
        assert {row["id"]: row["place"] for row in found} == expected


def test_no_ids_have_no_index(frame: Frame) -> None:
    assert dense_index(frame("id string", []), id_column="id", index_column="place").collect() == []


@given(st.integers(min_value=0, max_value=2**40))
@example(MAX_IDS)
@example(MAX_IDS + 1)
def test_more_ids_than_a_32_bit_index_can_tell_apart_are_refused(ids: int) -> None:
    if ids <= 2**31:
        require_indexable(ids, "user_id")
    else:
        with pytest.raises(InputError, match=r"distinct values of user_id: expected at most 2,147,483,648"):
            require_indexable(ids, "user_id")
