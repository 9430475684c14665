"""Neighbourhood baselines: cosine of weighted rows, the k nearest kept (Deshpande and Karypis 2004).

Weights are BM25's, or the strengths as they are. An item is its own nearest neighbour, and so is a user:
where repeats are allowed, what was had counts.
"""

from __future__ import annotations

from collections.abc import Callable

from scipy import sparse

from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.evaluation.baselines.scored import Scorer
from recsys_spark.models.neighbours import bm25, nearest

ITEM_NEIGHBOURS = 100
USER_NEIGHBOURS = 100

# From rows of strengths, [R, C], to rows of weights.
Weights = Callable[[sparse.csr_matrix], sparse.csr_matrix]


def plain(strength: sparse.csr_matrix) -> sparse.csr_matrix:
    """The strengths themselves: the cosine of the textbooks."""
    return strength


def item_knn(known: Known, *, k: int = ITEM_NEIGHBOURS, weights: Weights = bm25) -> Scorer:
    """Sum over the user's items j of taste(u, j) · cosine(j, i), where i is among the k nearest of j."""
    similar = nearest(weights(known.strength.T.tocsr()), k=k, keeps_self=True)
    taste = known.taste
    return lambda rows: (taste[rows] @ similar).toarray()


def user_knn(known: Known, *, k: int = USER_NEIGHBOURS, weights: Weights = bm25) -> Scorer:
    """Sum over the user's k nearest users v of cosine(u, v) · taste(v, i)."""
    similar = nearest(weights(known.strength), k=k, keeps_self=True)
    taste = known.taste
    return lambda rows: (similar[rows] @ taste).toarray()
