"""Which weights a blend has and where they come from, as sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from recsys_spark.config.sections import COMPONENTS, Blend
from recsys_spark.ranking.blend import Variant


def told_weights(blends: Mapping[str, Variant], settings: Blend) -> dict[str, tuple[str, ...]]:
    """By task: whether the weights are learned or configured, those of each bin, and who weighs nothing."""
    return {task: _told(blend, settings) for task, blend in blends.items()}


def _told(blend: Variant, settings: Blend) -> tuple[str, ...]:
    configured = settings.fixed(blend.task)
    bins = {0: blend.weights, **blend.longer}
    if settings.weights == "fixed":
        origin = "as configured"
    elif all(weights[name] in (0.0, configured[name]) for weights in bins.values() for name in COMPONENTS):
        origin = "as configured, since learning proved none better"
    else:
        origin = "learned"
    sentences = [f"weights {origin}"]
    for users, weights in _apart(bins):
        given = ", ".join(f"{name} {weights[name]:.4g}" for name in COMPONENTS if weights[name] != 0)
        nothing = [name for name in COMPONENTS if configured[name] > 0 and weights[name] == 0]
        without = f"; no weight without a gain: {', '.join(nothing)}" if nothing else ""
        sentences.append(f"{users}: {given}{without}")
    return tuple(sentences)


def _apart(bins: Mapping[int, dict[str, float]]) -> list[tuple[str, dict[str, float]]]:
    """Whom each set of weights is for, by the number of items that they had; equal neighbours are one."""
    starts: list[int] = []
    for at in sorted(bins):
        if not starts or bins[at] != bins[starts[-1]]:
            starts.append(at)
    if len(starts) == 1:
        return [("all users", bins[0])]
    names = [f"users of {low} to {high - 1} items" for low, high in pairwise(starts)]
    names.append(f"users of {starts[-1]} or more items")
    return [(name, bins[at]) for name, at in zip(names, starts, strict=True)]
