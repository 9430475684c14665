"""How unlike the items of one list are, by the words that the content model knows of them.

    diversity   1 - mean cosine of the content vectors over all pairs of the items shown within k

Intra-list diversity: the mean pairwise distance of Smyth and McClave 2001, which is one minus Ziegler et
al.'s intra-list similarity (2005) per pair. Of nothing is said what is not known: items without a word take
no part, and a list with fewer than two others has no diversity.

The sum of a list's unit vectors v has the squared length m + 2 · (sum of cosines of its pairs), so no pair
is looked at: 1 - (|Σ v|² - m) / (m (m - 1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from scipy import sparse


@dataclass(frozen=True)
class Vectors:
    """ids: items with a word; units [len(ids), V]: their content vectors, float64, of length 1."""

    ids: pa.Array
    units: sparse.csr_matrix


def shown_vectors(vectors: DataFrame, lists: DataFrame) -> Vectors:
    """`vectors` (item_id, terms, weights) of the items that any list shows, on the driver.

    Memory: 12 bytes a term of an item, so 100 MB for a million items of eight terms.
    """
    shown = lists.select("item_id").distinct()
    known = vectors.where("size(terms) > 0").select("item_id", "terms", "weights")
    table = known.join(shown, on="item_id", how="left_semi").toArrow()
    terms = table.column("terms").combine_chunks()
    indptr = np.concatenate([[0], np.cumsum(pc.list_value_length(terms).to_numpy(zero_copy_only=False))])
    weights = table.column("weights").combine_chunks().flatten().to_numpy().astype(np.float64)
    item = np.repeat(np.arange(table.num_rows), np.diff(indptr))
    norms = np.sqrt(np.bincount(item, weights**2, minlength=table.num_rows))
    units = weights / np.where(norms > 0, norms, 1.0)[item]
    term = terms.flatten().to_numpy()
    shape = (table.num_rows, int(term.max(initial=0)) + 1)
    return Vectors(
        table.column("item_id").combine_chunks().cast(pa.string()),
        sparse.csr_matrix((units, term, indptr), shape=shape),
    )


def places_in(vectors: Vectors, items: pa.Array) -> NDArray[np.int64]:
    """The row of each item's vector, -1 for one without."""
    return (
        pc.fill_null(pc.index_in(items.cast(pa.string()), value_set=vectors.ids), -1)
        .to_numpy()
        .astype(np.int64)
    )


def diversities(
    vectors: Vectors, place: NDArray[np.int64], of: NDArray[np.int64], *, lists: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Diversity of each list, and whether it has one. `place`: the items of the lists `of`, in order."""
    has_words = place >= 0
    place, of = place[has_words], of[has_words]
    size = np.bincount(of, minlength=lists)
    indptr = np.concatenate([[0], np.cumsum(size)])
    members = sparse.csr_matrix((np.ones(place.size), place, indptr), shape=(lists, vectors.units.shape[0]))
    total = members @ vectors.units
    total.sort_indices()  # squares are added in the order of terms: the same bits in whatever batch
    row = np.repeat(np.arange(lists), np.diff(total.indptr))
    squared = np.bincount(row, total.data**2, minlength=lists)
    pairs = np.maximum(size * (size - 1), 1)
    return 1.0 - (squared - size) / pairs, size > 1
