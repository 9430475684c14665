"""Neighbourhood baselines: cosine of BM25 weights, the k nearest kept (Deshpande and Karypis 2004).

An item is its own nearest neighbour, and so is a user: where repeats are allowed, what was had counts.
"""

from __future__ import annotations

from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.evaluation.baselines.scored import Scorer
from recsys_spark.models.neighbours import bm25, nearest

ITEM_NEIGHBOURS = 100
USER_NEIGHBOURS = 100


def item_knn(known: Known, *, k: int = ITEM_NEIGHBOURS) -> Scorer:
    """Sum over the user's items j of taste(u, j) · cosine(j, i), where i is among the k nearest of j."""
    similar = nearest(bm25(known.strength.T.tocsr()), k=k, keeps_self=True)
    taste = known.taste
    return lambda rows: (taste[rows] @ similar).toarray()


def user_knn(known: Known, *, k: int = USER_NEIGHBOURS) -> Scorer:
    """Sum over the user's k nearest users v of cosine(u, v) · taste(v, i)."""
    similar = nearest(bm25(known.strength), k=k, keeps_self=True)
    taste = known.taste
    return lambda rows: (similar[rows] @ taste).toarray()
