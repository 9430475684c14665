"""What a task spends while it selects: room for candidates, and one thread."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.ranking.kernel import engine as kernel_engine
from recsys_spark.ranking.kernel.parts import ItemParts, UserParts
from recsys_spark.ranking.kernel.select import select
from tests.ranking.kernel.parts import random_parts


def test_nearly_equal_scores_do_not_grow_the_candidates():
    """Memory is bounded by k and the tile of users, however many items are in play."""
    rng = np.random.default_rng(22)
    dense = np.ones((20_000, 4), np.float32)
    dense[:, 0] += rng.integers(0, 3, 20_000) * np.float32(2**-23)
    index, _ = select(ItemParts(dense), UserParts(np.full((2, 4), 1 / 3)), 5)
    np.testing.assert_array_equal(index, [np.argsort(-dense[:, 0], kind="stable")[:5]] * 2)


def test_blas_uses_one_thread_within_the_kernel_and_all_of_them_after(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    seen = []
    plain = kernel_engine.PlainEngine

    class Spy(plain):
        def take(self, *args):
            pools = threadpoolctl.threadpool_info()
            seen.extend(pool["num_threads"] for pool in pools if "numpy" in pool["filepath"])
            super().take(*args)

    monkeypatch.setattr(kernel_engine, "compiled_loops", lambda: None)
    monkeypatch.setattr(kernel_engine, "PlainEngine", Spy)
    before = threadpoolctl.threadpool_info()
    select(*random_parts(21, parts="dense"), 3)
    assert set(seen) == {1}
    assert threadpoolctl.threadpool_info() == before
