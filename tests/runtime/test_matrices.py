"""Matrices in parts: every row once, and no part that nobody asks for."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.runtime import matrices
from recsys_spark.runtime.matrices import MatrixSeries


def test_rows_come_back_from_bounded_parts_and_only_those_asked_for_are_mapped(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "PART_BYTES", 4 * 3 * 5)  # five rows of three numbers
    series = MatrixSeries(spark, "parts", 23, 3, is_local=True)
    matrix = np.arange(69, dtype=np.float32).reshape(23, 3)
    draft, order = series.begin(), np.random.default_rng(1).permutation(23)
    draft.put(order, matrix[order])
    assert [part.shape for part in draft.parts] == [(5, 3)] * 4 + [(3, 3)]
    assert [rows.tolist() for rows in draft.blocks(9)] == [matrix[at : at + 9].tolist() for at in (0, 9, 18)]
    shared = series.share(draft)

    def mapped() -> list[int]:
        return sorted(part for name, part in matrices.mapped_parts if name == series.series)

    few = np.array([12, 7, 12, 5], np.int32)
    np.testing.assert_array_equal(shared.read(few), matrix[few])
    assert mapped() == [1, 2]
    held, places = shared.needed(few)
    assert held.shape == (3, 3)
    np.testing.assert_array_equal(held[places], matrix[few])
    np.testing.assert_array_equal(shared.read(order), matrix[order])
    assert mapped() == [0, 1, 2, 3, 4]
    assert shared.read(order[:0]).shape == (0, 3)
    series.close()
