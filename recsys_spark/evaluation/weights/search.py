"""A search for the blend's weights that gives to no component what chance could have given.

NDCG@10 on a validation window is piecewise constant in the weights, so they are searched one at a time over
a grid of factors. What the search finds is judged on users that it did not see: they are split in two
halves, each judged by the weights of the other, and one paired bootstrap over all of them decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.evaluation.metrics.metrics import discounts
from recsys_spark.evaluation.metrics.significance import Interval, paired_bootstrap
from recsys_spark.names import COMPONENTS, POPULARITY, TRIAL

K = 10
FACTORS = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)  # of the weight as it is
SHARES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the largest weight, for a way out of zero
SWEEPS = 4  # over all components; the search ends earlier when one changes nothing
LEVEL = 0.95  # of the interval of a component's gain
BIN_LEVEL = 0.99  # of a bin's gain: each is one more look at the same users
GAIN = 1e-6  # less than this is no gain
LAST_RESORT = 0.001  # popularity's weight where nothing impersonal has one, of the largest weight
_DISCOUNTS = np.array(discounts(K))
_IDEALS = np.concatenate([[0.0], np.cumsum(_DISCOUNTS)])

Floats = NDArray[np.float64]
Weights = dict[str, float]


@dataclass(frozen=True)
class Cases:
    """U users with at most C candidates each, in the order in which ties fall.

    scores float32 [len(COMPONENTS), U, C]; is_item and is_hit bool [U, C]; wanted int64 [U]: how many items
    were right for the user, candidates or not, at least 1; pairs int64 [U]: the length of their history.
    """

    scores: NDArray[np.float32]
    is_item: NDArray[np.bool_]
    is_hit: NDArray[np.bool_]
    wanted: NDArray[np.int64]
    pairs: NDArray[np.int64]

    @property
    def size(self) -> int:
        return int(self.wanted.size)

    def of(self, users: NDArray[np.bool_]) -> Cases:
        return Cases(
            self.scores[:, users],
            self.is_item[users],
            self.is_hit[users],
            self.wanted[users],
            self.pairs[users],
        )

    def ndcg(self, weights: Floats) -> Floats:
        """NDCG@10 of each user under the weights, in the order of COMPONENTS."""
        return self.ndcg_of(np.einsum("c,cui->ui", weights, self.scores))

    def ndcg_of(self, score: Floats) -> Floats:
        """NDCG@10 of each user; ties go to the earlier candidate."""
        width = min(K, score.shape[1])
        ranked = np.where(self.is_item, score - 1e-9 * np.arange(score.shape[1]), -np.inf)
        top = np.argpartition(-ranked, width - 1, axis=1)[:, :width]
        order = np.argsort(-np.take_along_axis(ranked, top, axis=1), axis=1, kind="stable")
        hits = np.take_along_axis(self.is_hit, np.take_along_axis(top, order, axis=1), axis=1)
        gained: Floats = hits @ _DISCOUNTS[:width] / _IDEALS[np.minimum(self.wanted, K)]
        return gained


@dataclass(frozen=True)
class BinWeights:
    """Weights by bin, and what each rests on: sentences for people."""

    bins: dict[int, Weights]
    notes: tuple[str, ...]


def learned(
    cases: Cases, start: Weights, *, bins: Sequence[int], min_users: int, samples: int, seed: int
) -> BinWeights:
    """Weights for all users, and for each bin of history length whose own are proven to be better.

    A component without a proven gain weighs nothing. A bin of few users, or without a proven gain over the
    weights of all, has those. Where neither popularity nor trial would weigh, popularity decides ties;
    without it people who have no history would get the first items of the alphabet.

    cases: the users to learn from, with their candidates and what was right for them.
    start: by component, where the search begins; a weight below 0 counts as 0. It stands without a proven
        gain over it, but for components that gain nothing in it.
    bins: the number of pairs from which each bin of users begins; a bin from 0 on is always there.
    min_users: a bin of fewer users has the weights of all.
    samples: bootstrap samples of each interval, from 1.
    seed: of the bootstrap.
    """
    judge = _Judge(samples, seed)
    first = np.maximum(_array(start), 0.0)
    common, gains = _pruned(cases, first, judge)
    gain = judge.interval(_crossed(cases, first, _chosen(common)) - cases.ndcg(first))
    notes = [f"{cases.size:,} users, NDCG@10 {cases.ndcg(common).mean():.4f}, over the start {_signed(gain)}"]
    notes += [f"{name} {_signed(interval)}" for name, interval in gains.items()]
    if gain.low <= 0:
        common = _useful(cases, first)
        useless = [name for name, was, is_ in zip(COMPONENTS, first, common, strict=True) if was > 0 == is_]
        but = f" but for what gained nothing: {', '.join(useless)}" if useless else ""
        notes.append(f"no proven gain over the start, which stands{but}")
    edges = sorted({0, *bins})
    by_bin = dict.fromkeys(edges, _named(_with_last_resort(common)))
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        chosen = (cases.pairs >= low) & (cases.pairs < (np.inf if high is None else high))
        if chosen.sum() < min_users:
            continue
        here = cases.of(chosen)
        own, _ = _pruned(here, common, judge)
        better = judge.interval(_crossed(here, common, _chosen(own)) - here.ndcg(common), BIN_LEVEL)
        if better.low > 0:
            by_bin[low] = _named(_with_last_resort(own))
            notes.append(f"own weights from {low} pairs: {here.size:,} users, {_signed(better)}")
    return BinWeights(by_bin, tuple(notes))


@dataclass(frozen=True)
class _Judge:
    samples: int
    seed: int

    def interval(self, differences: Floats, level: float = LEVEL) -> Interval:
        return paired_bootstrap(differences, samples=self.samples, seed=self.seed, level=level)


def _pruned(cases: Cases, start: Floats, judge: _Judge) -> tuple[Floats, dict[str, Interval]]:
    """Searched weights of the components whose gain is proven, and the gains; the best one always stays."""
    allowed = np.ones(len(COMPONENTS), np.bool_)
    latest_gains: dict[str, Interval] = {}
    while True:
        gains = _gains(cases, start, allowed, judge)
        latest_gains |= {COMPONENTS[c]: interval for c, interval in gains.items()}
        unproven = [c for c, interval in gains.items() if interval.low <= 0]
        if not unproven or allowed.sum() == 1:
            break
        allowed[min(unproven, key=lambda c: (gains[c].mean, c))] = False
    return _searched(cases, start, allowed), latest_gains


def _useful(cases: Cases, weights: Floats) -> Floats:
    """The weights without the components, the worst first, whose absence does not lower the mean NDCG@10."""
    while True:
        mean = cases.ndcg(weights).mean()
        without = [np.where(np.arange(weights.size) == c, 0.0, weights) for c in np.flatnonzero(weights)]
        rest = [(float(cases.ndcg(one).mean() - mean), n) for n, one in enumerate(without) if one.any()]
        best, at = max(rest, default=(-1.0, 0))
        if best < 0:
            return weights
        weights = without[at]


def _gains(cases: Cases, start: Floats, allowed: NDArray[np.bool_], judge: _Judge) -> dict[int, Interval]:
    """What NDCG@10 loses on unseen users when one component is left out of weights that were searched."""
    whole, without = np.zeros(cases.size), np.zeros((len(COMPONENTS), cases.size))
    for seen, unseen in _halves(cases.size):
        weights = _searched(cases.of(seen), start, allowed)
        rest = cases.of(unseen)
        whole[unseen] = rest.ndcg(weights)
        for c in np.flatnonzero(allowed):
            without[c, unseen] = rest.ndcg(np.where(np.arange(len(COMPONENTS)) == c, 0.0, weights))
    return {int(c): judge.interval(whole - without[c]) for c in np.flatnonzero(allowed)}


def _crossed(cases: Cases, start: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """NDCG@10 of each user under the weights that were searched on the other half."""
    result = np.zeros(cases.size)
    for seen, unseen in _halves(cases.size):
        result[unseen] = cases.of(unseen).ndcg(_searched(cases.of(seen), start, allowed))
    return result


def _halves(size: int) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    even = np.arange(size) % 2 == 0
    return [(even, ~even), (~even, even)]


def _searched(cases: Cases, start: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """Weights from which no single step of the grid leads to a higher mean NDCG@10."""
    weights = np.where(allowed, start, 0.0)
    if not weights.any():
        weights = allowed.astype(np.float64)
    best = float(cases.ndcg(weights).mean())
    for _ in range(SWEEPS):
        before = best
        for c in np.flatnonzero(allowed):
            weights, best = _stepped(cases, weights, int(c), best)
        if best - before <= GAIN:
            break
    return weights / weights.max()


def _stepped(cases: Cases, weights: Floats, c: int, best: float) -> tuple[Floats, float]:
    """The weights with the best value for component c."""
    others = np.where(np.arange(weights.size) == c, 0.0, weights)
    rest = np.einsum("c,cui->ui", others, cases.scores)
    grid = {float(weights[c] * factor) for factor in FACTORS}
    if others.any():
        # Only beside others may one weigh nothing: weights that are all 0 rank nothing.
        grid |= {0.0, *(float(others.max() * share) for share in SHARES)}
    chosen = float(weights[c])
    for value in sorted(grid - {chosen}):
        ndcg = float(cases.ndcg_of(rest + value * cases.scores[c]).mean())
        if ndcg > best + GAIN:
            best, chosen = ndcg, value
    return np.where(np.arange(weights.size) == c, chosen, weights), best


def _with_last_resort(weights: Floats) -> Floats:
    """People without a history have popularity and trial only: where neither weighs, popularity settles."""
    popularity, trial = COMPONENTS.index(POPULARITY), COMPONENTS.index(TRIAL)
    if weights[popularity] > 0 or weights[trial] > 0:
        return weights
    return np.where(np.arange(weights.size) == popularity, LAST_RESORT * weights.max(), weights)


def _chosen(weights: Floats) -> NDArray[np.bool_]:
    return np.asarray(weights > 0)


def _array(weights: Weights) -> Floats:
    return np.array([weights[name] for name in COMPONENTS])


def _named(weights: Floats) -> Weights:
    return {name: float(weight) for name, weight in zip(COMPONENTS, weights, strict=True)}


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
