"""The blend: score(u, i) = sum over components of weight * standardised score, exact over the catalogue.

ALS, content and the logarithms of popularity and trial are divided by the standard deviation that they
have for the user over a fixed reference set of items, before any mask; the mean changes no ranking and
is dropped, and a deviation of 0 gives 0. History is log1p(strength), less what has faded since it fell
due, the same scale for everyone, and 0 where absent. A user of whom nothing is known, neither factors nor a
history, may have the popularity of their group instead of everyone's popularity and trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.names import ALS, COMPONENTS, CONTENT, HISTORY, POPULARITY, REPEATS_ALLOWED, TRIAL
from recsys_spark.ranking.kernel.select import Csr, UserParts
from recsys_spark.runtime.compiled import compiled, frozen

LOOPS = "recsys_spark.ranking.blend_loops"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """How each component varies over the reference items.

    als: covariance [d, d] of the item factors. content_gram: sparse [V, V], of the same quadratic form as
    E[t tᵀ], and content_mean [V] of the TF-IDF vectors t. counts [2 + G]: standard deviations of
    log1p(popularity), log1p(trial), and log1p of the popularity in each of G groups of users.
    """

    als: Floats
    content_gram: sparse.csr_matrix
    content_mean: Floats
    counts: Floats


@dataclass(frozen=True)
class Variant:
    """One kind of list: weights per component, and whether it may hold what the user already had.

    longer: other weights for users with longer histories, by the number of pairs from which they hold.
    newcomers: the share of a list, its last places, that is kept for items that nobody has had yet.
    """

    task: str
    model: str
    weights: dict[str, float]
    longer: Mapping[int, dict[str, float]] = field(default_factory=dict)
    newcomers: float = 0.0

    @classmethod
    def binned(
        cls, task: str, model: str, bins: Mapping[int, dict[str, float]], *, newcomers: float = 0.0
    ) -> Variant:
        """The variant of weights by bin; the lowest bin holds for all who are in no other."""
        lowest = min(bins)
        longer = {at: bins[at] for at in sorted(bins) if at != lowest}
        return cls(task, model, bins[lowest], longer, newcomers)

    @property
    def repeats_allowed(self) -> bool:
        return self.task == REPEATS_ALLOWED

    @property
    def components(self) -> tuple[str, ...]:
        """The components that weigh something for somebody."""
        everyone = (self.weights, *self.longer.values())
        return tuple(name for name in COMPONENTS if any(weights[name] != 0 for weights in everyone))

    @property
    def plain(self) -> Variant:
        """The same components, each with weight 1 for everyone: its scores are those before weighting."""
        return Variant(self.task, self.model, {name: float(name in self.components) for name in COMPONENTS})

    def bin_of(self, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
        """The least number of pairs of each user's bin, 0 for the lowest; int32 [U]."""
        starts = np.array([0, *sorted(self.longer)], np.int32)
        return starts[np.searchsorted(starts[1:], pairs, side="right")]

    def weights_of(self, pairs: NDArray[np.int64]) -> dict[str, Floats]:
        """Each component's weight for users with so many pairs, float64 [U]."""
        by_bin = [self.weights, *(self.longer[at] for at in sorted(self.longer))]
        at = np.searchsorted(sorted(self.longer), pairs, side="right")
        return {name: np.array([weights[name] for weights in by_bin])[at] for name in COMPONENTS}


def group_weight(weights: Mapping[str, float]) -> float:
    """What a group's popularity weighs for those whom it carries: as much as what it stands for.

    It is all that they have, so any weight above 0 gives the same order.
    """
    return max(weights[POPULARITY], weights[TRIAL])


@dataclass(frozen=True)
class UserBatch:
    """U users as they reach a worker.

    factors [U, d] float64 (zeros where unknown), strength [U, I] sparse float64: the preferences, over all
    items known, those of a user in the order of the items; fade float64, for each of them what is left of it
    in history, None for all; excluded [U, I]: further items that the user may not get; group int32 [U];
    popularity_group int32 [U]: whose popularity carries them if nothing is known of them, -1 for everyone's.
    """

    factors: Floats
    strength: sparse.csr_matrix
    excluded: Csr | None = None
    group: NDArray[np.int32] | None = None
    fade: Floats | None = None
    popularity_group: NDArray[np.int32] | None = None


def scaling_of(
    factors: NDArray[np.float32],
    vectors: sparse.csr_matrix,
    log_counts: NDArray[np.float32],
    reference: NDArray[np.bool_],
) -> Scaling:
    """Scaling over the reference items; over all items where the reference set is empty."""
    chosen = reference if reference.any() else np.ones_like(reference)
    y = factors[chosen].astype(np.float64)
    centred = y - y.mean(axis=0)
    t = vectors[chosen].astype(np.float64)
    count = max(int(chosen.sum()), 1)
    return Scaling(
        als=centred.T @ centred / count,
        content_gram=_upper(t.T @ t) / count,
        content_mean=np.asarray(t.mean(axis=0)).ravel(),
        counts=log_counts[chosen].astype(np.float64).std(axis=0),
    )


def _upper(symmetric: sparse.spmatrix) -> sparse.csr_matrix:
    """What gives the same pᵀ G p with half of the entries: those above the diagonal count twice."""
    upper = (2 * sparse.triu(symmetric, 1) + sparse.diags(symmetric.diagonal())).tocsr()
    upper.sort_indices()
    return upper


def word_profiles(strength: sparse.csr_matrix, words: Csr, n_terms: int) -> sparse.csr_matrix:
    """p_u = sum of strength(u, i) * t_i, L2-normalised; [U, V] float64, empty rows stay empty.

    words: the items' TF-IDF vectors [I, V]; only the rows of items that somebody has are touched.
    """
    used, at = np.unique(strength.indices, return_inverse=True)
    rows = words.take(used)
    vectors = sparse.csr_matrix(
        (np.asarray(rows.values, np.float64), rows.indices, rows.indptr), shape=(used.size, n_terms)
    )
    own = sparse.csr_matrix((strength.data, at, strength.indptr), shape=(strength.shape[0], used.size))
    summed = (own @ vectors).tocsr()
    norms = np.sqrt(np.asarray(summed.multiply(summed).sum(axis=1)).ravel())
    profiles = sparse.diags(_inverse(norms)).dot(summed).tocsr()
    profiles.sort_indices()  # what is summed over terms has the same bits in any batch
    return profiles


def als_deviation(factors: Floats, scaling: Scaling) -> Floats:
    """σ_u of x_u·y_i over the reference items: sqrt(x_uᵀ Cov(Y) x_u)."""
    return np.sqrt(np.maximum(np.einsum("ud,de,ue->u", factors, scaling.als, factors), 0.0))


def content_deviation(profiles: sparse.csr_matrix, scaling: Scaling) -> Floats:
    """σ_u of p_u·t_i over the reference items: sqrt(pᵀ E[t tᵀ] p − (p·E[t])²)."""
    second = quadratic_forms(profiles, scaling.content_gram)
    mean = profiles @ scaling.content_mean
    return np.sqrt(np.maximum(second - mean**2, 0.0))


def quadratic_forms(rows: sparse.csr_matrix, gram: sparse.csr_matrix) -> Floats:
    """pᵀ G p for each row p of rows [U, V]; gram [V, V]. The same bits with numba and without."""
    loops = compiled(LOOPS)
    if loops is None:
        return _quadratic_forms_plain(rows, gram)
    arrays = [
        frozen(values, dtype)
        for matrix in (rows, gram)
        for values, dtype in (
            (matrix.indptr, np.int64),
            (matrix.indices, np.int32),
            (matrix.data, np.float64),
        )
    ]
    forms: Floats = loops.quadratic_forms(*arrays, gram.shape[0])
    return forms


def _quadratic_forms_plain(rows: sparse.csr_matrix, gram: sparse.csr_matrix) -> Floats:
    forms = np.zeros(rows.shape[0])
    for u in range(rows.shape[0]):
        own = slice(rows.indptr[u], rows.indptr[u + 1])
        p = np.zeros(gram.shape[0])
        p[rows.indices[own]] = rows.data[own]
        for s, value in zip(rows.indices[own], rows.data[own], strict=True):
            there = slice(gram.indptr[s], gram.indptr[s + 1])
            terms = gram.data[there] * p[gram.indices[there]]
            forms[u] += value * (np.cumsum(terms)[-1] if terms.size else 0.0)  # one after the other
    return forms


@dataclass(frozen=True)
class ScaledUsers:
    """A batch with each component standardised, before weights: what all variants share.

    history and seen are by candidate, what the kernel ranks; word_profiles are of all items known. pairs
    int64 [U]: of the items known, how many the user has a preference for. carried_by int32 [U]: the group
    whose popularity is all that they have, -1 for none.
    """

    factors: Floats
    counts: Floats
    word_profiles: sparse.csr_matrix
    history: Csr
    seen: Csr
    excluded: Csr | None
    group: NDArray[np.int32] | None
    pairs: NDArray[np.int64]
    carried_by: NDArray[np.int32]

    @classmethod
    def of(
        cls, batch: UserBatch, words: Csr, scaling: Scaling, candidate: NDArray[np.int32] | None = None
    ) -> ScaledUsers:
        """candidate int32 [I]: each item's place among the candidates, -1 for none; None: all are."""
        profiles = word_profiles(batch.strength, words, scaling.content_mean.shape[0])
        batch.strength.sort_indices()
        had = Csr(
            batch.strength.indptr.astype(np.int64),
            batch.strength.indices.astype(np.int32),
            np.log1p(batch.strength.data) * (1.0 if batch.fade is None else batch.fade),
        )
        history, excluded = had, batch.excluded
        pairs = np.bincount(had.row[batch.strength.data > 0], minlength=had.n_rows)
        if candidate is not None:
            history = _among(had, candidate)
            excluded = excluded and _among(excluded, candidate)
        return cls(
            factors=batch.factors * _inverse(als_deviation(batch.factors, scaling))[:, None],
            counts=_inverse(scaling.counts),
            word_profiles=sparse.diags(_inverse(content_deviation(profiles, scaling))).dot(profiles).tocsr(),
            history=history,
            seen=Csr(history.indptr, history.indices),
            excluded=excluded,
            group=batch.group,
            pairs=pairs,
            carried_by=_carried_by(batch, pairs),
        )

    def parts(self, variant: Variant) -> UserParts:
        """As the kernel takes them: dense [als | popularity | trial | groups], sparse content, additive
        history.

        A component that weighs nothing for everyone costs nothing; one that weighs nothing for some of the
        users is 0 for them.
        """
        weights = variant.weights_of(self.pairs)
        excluded = self.excluded
        if not variant.repeats_allowed:
            excluded = self.seen if excluded is None else self.seen.joined(excluded)
        additive = None
        if np.any(weights[HISTORY] != 0):
            values = np.asarray(self.history.values) * weights[HISTORY][self.history.row]
            additive = Csr(self.history.indptr, self.history.indices, values)
        return UserParts(
            dense=np.hstack([weights[ALS][:, None] * self.factors, self._counts(variant, weights)]),
            sparse=_csr(self.word_profiles, weights[CONTENT]),
            additive=additive,
            excluded=excluded,
            group=self.group,
        )

    def among(self, scaling: Scaling, candidate: NDArray[np.int32]) -> ScaledUsers:
        """The same users for a part of what is ranked, each component standardised over that part's scaling.

        candidate int32 [candidates so far]: each one's place in the part, -1 for none.
        """
        deviation = content_deviation(self.word_profiles, scaling)
        return replace(
            self,
            factors=self.factors * _inverse(als_deviation(self.factors, scaling))[:, None],
            counts=_inverse(scaling.counts),
            word_profiles=sparse.diags(_inverse(deviation)).dot(self.word_profiles).tocsr(),
            history=_among(self.history, candidate),
            seen=_among(self.seen, candidate),
            excluded=self.excluded and _among(self.excluded, candidate),
        )

    def _counts(self, variant: Variant, weights: Mapping[str, Floats]) -> Floats:
        """Weights of popularity, trial and each group's popularity over their deviations [U, 2 + G]."""
        weighed = np.zeros((self.pairs.size, self.counts.size))
        weighed[:, 0], weighed[:, 1] = weights[POPULARITY], weights[TRIAL]
        carried = np.flatnonzero(self.carried_by >= 0)
        weighed[carried, :2] = 0.0
        # Without a pair they are in the lowest bin.
        weighed[carried, 2 + self.carried_by[carried]] = group_weight(variant.weights)
        return self.counts * weighed


def _carried_by(batch: UserBatch, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    if batch.popularity_group is None:
        return np.full(pairs.size, -1, np.int32)
    is_known = (pairs > 0) | np.any(batch.factors != 0, axis=1)
    return np.where(is_known, -1, batch.popularity_group).astype(np.int32)


def _among(matrix: Csr, candidate: NDArray[np.int32]) -> Csr:
    """The columns that are candidates, renumbered."""
    column = candidate[matrix.indices]
    kept = column >= 0
    counts = np.bincount(matrix.row[kept], minlength=matrix.n_rows)
    values = None if matrix.values is None else matrix.values[kept]
    return Csr(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), column[kept], values)


def _csr(matrix: sparse.csr_matrix, weight: Floats) -> Csr | None:
    """The matrix, each row weighted; None, and so no work at all, where the component weighs nothing."""
    if not np.any(weight):
        return None
    matrix.sort_indices()
    values = matrix.data * np.repeat(weight, np.diff(matrix.indptr))
    return Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), values)


def _inverse(values: Floats) -> Floats:
    """1/x, and 0 where x is 0 (or so small that it is rounding)."""
    safe = np.where(values > 1e-12, values, 1.0)
    return np.where(values > 1e-12, 1.0 / safe, 0.0)
