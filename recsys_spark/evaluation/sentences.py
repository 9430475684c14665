"""What is found, for people: who wins and by how much, which weights a blend has and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from recsys_spark.config.sections import Blend
from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.names import COMPONENTS, HYBRID
from recsys_spark.ranking.blend import Variant


def verdict(leads: Mapping[str, Interval], *, leader: str = HYBRID, of: str = "NDCG@10") -> str:
    """`leads` is by how much the leader's metric is above each other model's, at least one.

    Where one is above the leader the sentence names the highest of them, else the one that comes nearest.
    """
    nearest = min(leads, key=lambda name: (leads[name].mean, name))
    lead = leads[nearest]
    doubt = "" if lead.excludes_zero else ", which does not exclude zero"
    if lead.mean >= 0:
        bounds = f"{lead.mean:.4f} [{lead.low:.4f}, {lead.high:.4f}]"
        return f"{leader} leads all {len(leads)} others in {of}; nearest is {nearest} by {bounds}{doubt}."
    bounds = f"{-lead.mean:.4f} [{-lead.high:.4f}, {-lead.low:.4f}]"
    ahead = sorted(name for name, other in leads.items() if other.mean < 0 and name != nearest)
    also = f"; ahead of it are also {', '.join(ahead)}" if ahead else ""
    return f"{nearest} beats {leader} in {of} by {bounds}{doubt}{also}."


def weight_sentences(blends: Mapping[str, Variant], settings: Blend) -> dict[str, tuple[str, ...]]:
    """By task: whether the weights are learned or configured, those of each bin, and who weighs nothing."""
    return {task: _sentences(blend, settings) for task, blend in blends.items()}


def _sentences(blend: Variant, settings: Blend) -> tuple[str, ...]:
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
