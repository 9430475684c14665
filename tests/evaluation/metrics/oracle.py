"""Ranking metrics in plain Python, one user at a time, straight from their definitions."""

from __future__ import annotations

import itertools
import math
from typing import Any


def slots(ranked: list[tuple[int, str]]) -> dict[int, str]:
    """Position -> item: each item once at its best rank, in (rank, item) order, no position twice."""
    best: dict[str, int] = {}
    for rank, item in ranked:
        best[item] = min(rank, best.get(item, rank))
    placed: dict[int, str] = {}
    last = 0
    for rank, item in sorted((rank, item) for item, rank in best.items()):
        last = max(rank, last + 1)
        placed[last] = item
    return placed


def user_metrics(ranked: list[tuple[int, str]], wanted: set[str], k: int) -> dict[str, float]:
    placed = slots(ranked)
    gains = [1 if placed.get(position) in wanted else 0 for position in range(1, k + 1)]
    hits, n = sum(gains), len(wanted)
    precision, recall = hits / k, hits / n
    dcg = sum(gain / math.log2(position + 1) for position, gain in enumerate(gains, start=1))
    ideal = sum(1 / math.log2(position + 1) for position in range(1, min(k, n) + 1))
    precisions = [sum(gains[:position]) / position for position in range(1, k + 1) if gains[position - 1]]
    return {
        f"precision@{k}": precision,
        f"recall@{k}": recall,
        f"recall_capped@{k}": hits / min(k, n),
        f"f1@{k}": 2 * precision * recall / (precision + recall) if hits else 0.0,
        f"ndcg@{k}": dcg / ideal,
        f"map@{k}": sum(precisions) / min(k, n),
        f"mrr@{k}": 1 / (gains.index(1) + 1) if hits else 0.0,
        f"hit_rate@{k}": 1.0 if hits else 0.0,
    }


def serendipity(
    ranked: list[tuple[int, str]], wanted: set[str], k: int, popularity: dict[str, float]
) -> float:
    had = [item for item in popularity if popularity[item] > 0]
    popular = sorted(had, key=lambda item: (-popularity[item], item))[:k]
    shown = [item for position, item in slots(ranked).items() if position <= k]
    return sum(item in wanted and item not in popular for item in shown) / k


def cosine(one: dict[Any, float], other: dict[Any, float]) -> float:
    product = sum(one[key] * other.get(key, 0.0) for key in one)
    return product / math.sqrt(sum(x * x for x in one.values()) * sum(y * y for y in other.values()))


def diversity(ranked: list[tuple[int, str]], k: int, vectors: dict[str, dict[int, float]]) -> float | None:
    """None where fewer than two of the items shown have a word."""
    shown = [item for position, item in slots(ranked).items() if position <= k]
    worded = [vectors[item] for item in shown if vectors.get(item)]
    pairs = [cosine(one, other) for one, other in itertools.combinations(worded, 2)]
    return 1 - mean(pairs) if pairs else None


def list_metrics(
    lists: dict[str, list[tuple[int, str]]], k: int, popularity: dict[str, float], catalogue_size: int
) -> dict[str, float]:
    shown = {
        user: [item for position, item in slots(ranked).items() if position <= k]
        for user, ranked in lists.items()
    }
    exposure: dict[str, int] = {}
    for items in shown.values():
        for item in items:
            exposure[item] = exposure.get(item, 0) + 1
    counts = list(exposure.values()) + [0] * (catalogue_size - len(exposure))
    pairwise = sum(abs(x - y) for x in counts for y in counts)
    rarest, total = min(p for p in popularity.values() if p > 0), sum(popularity.values())
    popular = [[popularity.get(item, 0.0) for item in items] for items in shown.values() if items]
    novel = [[-math.log2((p if p > 0 else rarest) / total) for p in items] for items in popular]
    return {
        f"coverage@{k}": len(exposure) / catalogue_size,
        f"gini@{k}": pairwise / (2 * catalogue_size * sum(counts)),
        f"mean_popularity@{k}": mean([mean(items) for items in popular]),
        f"novelty@{k}": mean([mean(items) for items in novel]),
    }


def rating_errors(pairs: list[tuple[float, float]]) -> dict[str, float]:
    apart = [given - predicted for given, predicted in pairs]
    return {"rmse": math.sqrt(mean([d * d for d in apart])), "mae": mean([abs(d) for d in apart])}


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
