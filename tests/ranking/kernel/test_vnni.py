"""The processor's product of codes, against whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.ranking.kernel import codes as kernel_codes


def test_the_block_product_is_that_of_whole_numbers(engine):
    if engine != "codes":
        pytest.skip("about the product of codes")
    import numba  # noqa: PLC0415  # absent where the other engines are tested

    from recsys_spark.ranking.kernel.vnni import LANES, ROWS, block_above, block_largest  # noqa: PLC0415

    # An intrinsic is no function.
    is_above = numba.njit(lambda *args: block_above(*args))  # noqa: PLW0108
    take_largest = numba.njit(lambda *args: block_largest(*args))  # noqa: PLW0108
    rng = np.random.default_rng(23)
    items = rng.integers(-127, 128, (2 * ROWS, 20)).astype(np.int8)
    users = rng.integers(-127, 128, (2 * LANES, 20)).astype(np.int8)
    expected = (items.astype(np.int64) @ users.T.astype(np.int64))[ROWS:, LANES:]
    starts = (-128 * items.astype(np.int64).sum(axis=1)).astype(np.int32)
    packed_items = kernel_codes.in_blocks(items, ROWS)
    packed_users = kernel_codes.in_blocks(users, LANES).view(np.uint8) ^ np.uint8(128)
    second = (packed_items, ROWS * 20, starts, ROWS, packed_users, LANES * 20, 5)
    bars = np.sort(expected, axis=0)[-3].astype(np.int32)
    above = np.zeros(ROWS, np.uint32)
    assert is_above(*second, bars, above)
    bits = (above[:, None] >> np.arange(LANES, dtype=np.uint32)) & 1
    np.testing.assert_array_equal(bits, expected > bars)
    assert not is_above(*second, expected.max(axis=0).astype(np.int32), above)
    largest = np.zeros((3, LANES), np.int32)
    take_largest(*second, largest, 1)
    np.testing.assert_array_equal(largest, [np.zeros(LANES), expected.max(axis=0), np.zeros(LANES)])
