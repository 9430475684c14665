"""Who wins, and by how much, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from recsys_spark.evaluation.metrics.significance import Interval


def verdict(leads: Mapping[str, Interval], *, leader: str = "hybrid", of: str = "NDCG@10") -> str:
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
