"""Baselines of low rank: truncated SVD, BPR, and the naive sum of ALS and TF-IDF."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.evaluation.baselines.scored import Scorer
from recsys_spark.models.als.linear import directions
from recsys_spark.ranking.blend import word_profiles
from recsys_spark.ranking.kernel.select import Csr

RANK = 64
BPR_LIBRARY = "implicit"
BPR_ITERATIONS = 100


def svd(known: Known, *, rank: int = RANK) -> Scorer:
    """PureSVD (Cremonesi, Koren, Turrin 2010): the user's row projected on the best `rank` directions."""
    taste = known.taste
    basis = directions(taste, rank)
    return lambda rows: (taste[rows] @ basis.T) @ basis


def raw_sum(
    known: Known,
    *,
    users: NDArray[np.float64],
    items: NDArray[np.float64],
    words: sparse.csr_matrix,
) -> Scorer:
    """x_u·y_i + p_u·t_i, unscaled: what the blend's standardisation is to be worth more than.

    users [U, d], items [I, d] factors; words [I, V] TF-IDF vectors. p_u are the blend's word profiles.
    """
    profiles = word_profiles(known.strength, Csr(words.indptr, words.indices, words.data), words.shape[1])

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        content = (words @ profiles[rows].toarray().T).T
        return users[rows] @ items.T + np.asarray(content)

    return score


def has_bpr() -> bool:
    return importlib.util.find_spec(BPR_LIBRARY) is not None


def bpr(known: Known, *, seed: int, rank: int = RANK) -> Scorer:
    """Bayesian personalised ranking (Rendle et al. 2009), by the library `implicit`, in one thread.

    More threads update the same factors at once, and two runs would differ.
    """
    library = importlib.import_module("implicit.cpu.bpr")
    model = library.BayesianPersonalizedRanking(
        factors=rank, iterations=BPR_ITERATIONS, random_state=seed, num_threads=1
    )
    positive = known.strength.astype(np.float32)
    positive.data[:] = 1.0
    model.fit(positive, show_progress=False)
    users, items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    return lambda rows: (users[rows] @ items.T).astype(np.float64)
