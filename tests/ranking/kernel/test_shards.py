"""A catalogue in shards: the lists of a whole one, each shard loaded once, and none larger than asked."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.ranking.kernel.parts import Csr, ItemParts, packed
from recsys_spark.ranking.kernel.select import select
from recsys_spark.ranking.kernel.shards import CUT, arranged, in_memory, item_bytes
from tests.ranking.kernel.parts import assert_exact, examples, noting_loads, random_parts, some_parts


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_users=st.integers(1, 80),
    levels=st.sampled_from([None, 1, 2]),
    cuts=st.one_of(
        st.sampled_from([(), (150,), (100, 200), (43, 86, 129, 172, 215, 258)]),
        st.sets(st.integers(1, 299), max_size=7).map(sorted),
    ),
    spread=st.sampled_from([0.0, 3.0]),
    tile_users=st.integers(1, 100),
    tile_items=st.integers(1, 250),
    parts=some_parts,
)
def test_shards_of_any_number_and_size_change_nothing(
    seed, n_users, levels, cuts, spread, tile_users, tile_items, parts
):
    items, users = random_parts(seed, n_users=n_users, levels=levels, parts=" ".join(parts))
    sizes = np.exp(spread * np.random.default_rng(seed).standard_normal((300, 1)))
    items = replace(items, dense=(items.dense * sizes).astype(np.float32))  # most users leave early
    assert_exact(items, users, 11, cuts=cuts, tile_users=tile_users, tile_items=tile_items)


def test_packed_masks_equal_plain_ones_in_any_shard():
    items, users = random_parts(28, n_items=301)
    index, _ = select(items, users, 5)
    bits = packed(items.allowed)
    assert bits.shape == (3, 38)
    for cuts in ((), (3, 150, 299)):
        got, _ = select(in_memory(replace(items, allowed=bits), cuts=cuts), users, 5)
        np.testing.assert_array_equal(got, index)


def test_shards_are_loaded_once_a_call_each_and_one_at_a_time():
    items, users = random_parts(23, n_users=200)
    shards, loaded = noting_loads(items, cuts=(100, 200))
    select(shards, users, 5, tile_users=30)
    assert loaded == [0, 1, 2]


def test_shards_are_no_larger_than_asked():
    items, _ = random_parts(24, n_items=1_000)
    outline = arranged(items, shard_bytes=item_bytes(items) // 3).outline
    sizes = np.diff(outline.cuts)
    assert sizes.sum() == 1_000
    assert sizes.max() <= 1_000 / 3
    assert np.all(sizes[:-1] % CUT == 0)
    assert arranged(items, shard_bytes=item_bytes(items)).outline.cuts == (0, 1_000)


def test_no_shard_is_larger_than_asked_where_words_are_uneven():
    """A tenth of the items, those of the largest norms, have two hundred words and the others none."""
    dense = np.linspace(9, 1, 6_400).astype(np.float32).repeat(4).reshape(-1, 4)
    lengths = np.where(np.arange(6_400) < 640, 200, 0)
    words = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = ItemParts(dense, Csr(indptr, words, np.ones(words.size, np.float32)))
    asked = item_bytes(items) // 8
    outline = arranged(items, shard_bytes=asked).outline
    taken = 4 * 4 + 2 * 8 + 4 + 8 + 8 + 8 * lengths  # factors, norms, place, codes, words
    held = [taken[start:stop].sum() for start, stop in pairwise(outline.cuts)]
    assert sum(held) == item_bytes(items)
    assert max(held) <= asked
    assert min(held[:-1]) > asked / 2, "nor are there more than are needed"
    assert np.all(np.diff(arranged(items, shard_bytes=1).outline.cuts) == CUT)
