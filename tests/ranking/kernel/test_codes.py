"""Factors as 8-bit codes: a sum of codes is within its margin, and where it tells nothing float32 does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.ranking.kernel import codes as kernel_codes
from recsys_spark.ranking.kernel import engine as kernel_engine
from recsys_spark.ranking.kernel import select as kernel
from recsys_spark.ranking.kernel.parts import ItemParts, UserParts
from recsys_spark.ranking.kernel.shards import in_memory
from tests.ranking.kernel.parts import assert_exact, examples


def coded_problem(seed: int, *, n_dims: int, tile: int, spread: float) -> tuple[ItemParts, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = np.exp(spread * rng.standard_normal(n_dims))
    items = (rng.standard_normal((2 * tile + 5, n_dims)) * sizes).astype(np.float32)
    return ItemParts(items), rng.standard_normal((40, n_dims)) / sizes * np.exp(spread * rng.random((40, 1)))


def unpacked(flat: np.ndarray, rows: int, n_dims: int) -> np.ndarray:
    steps = -(-n_dims // 4)
    return flat.reshape(-1, steps, rows, 4).transpose(0, 2, 1, 3).reshape(-1, steps * 4)[:, :n_dims]


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_dims=st.integers(1, 70),
    tile=st.integers(1, 50),
    spread=st.sampled_from([0.0, 1.0, 8.0]),
)
def test_a_sum_of_codes_is_within_its_margin_of_the_score(seed, n_dims, tile, spread):
    items, dense = coded_problem(seed, n_dims=n_dims, tile=tile, spread=spread)
    shard = in_memory(items).load(0)
    coded = kernel_codes.CodedItems.of(shard, tile, 12)
    users = kernel_codes.CodedUsers.of(dense.astype(np.float32), coded.exponent, 32)
    user_codes = unpacked(users.codes ^ np.uint8(128), 32, n_dims)[:40].view(np.int8).astype(np.int64)
    for number, part in enumerate(coded.tiles):
        rows = shard.dense[number * tile : (number + 1) * tile].astype(np.float64)
        codes = unpacked(part.codes, 12, n_dims)[: len(rows)].astype(np.int64)
        np.testing.assert_array_equal(part.starts[: len(rows)], -128 * codes.sum(axis=1))
        near = users.step[:, None] * part.step * (user_codes @ codes.T)
        assert np.all(np.abs(near - dense @ rows.T) <= users.margin(part)[:, None])
        assert np.all(np.abs(codes) <= 127)


def test_codes_that_tell_nothing_apart_leave_the_scan_to_float32(engine, monkeypatch):
    """One dimension a thousand times the others: they all but vanish from the codes, not from the lists."""
    rng = np.random.default_rng(24)
    dense = rng.standard_normal((9_000, 8)).astype(np.float32)
    dense[:, 0] = 1000
    users = rng.standard_normal((70, 8))
    users[:, 0] = 1000
    taken = []

    def noting(take):
        return lambda self, tile, start, *rest: taken.append(start) or take(self, tile, start, *rest)

    for kind in (kernel_engine.CompiledEngine, kernel_engine.PlainEngine):
        monkeypatch.setattr(kind, "take", noting(kind.take))
    assert_exact(ItemParts(dense), UserParts(users), 3)
    assert min(taken) == (kernel.CODED_TILES * kernel.TILE_ITEMS * 2 if engine == "codes" else 0)
