"""What models.metrics holds of a judgement, read back for the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.evaluation.sentences import verdict
from recsys_spark.names import HEADLINE, HYBRID

# kind → name → (users, model → NDCG@10)
Slices = dict[str, dict[str, tuple[int, dict[str, float]]]]


@dataclass(frozen=True)
class Stored:
    """By task: model → metric → value, who wins in a sentence, and NDCG@10 apart by slices."""

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    slices: dict[str, Slices] = field(default_factory=dict)


def stored(rows: Iterable[Mapping[str, Any]]) -> Stored:
    """`rows` are one judgement's: task, model, metric, value, low, high, users."""
    judged = Stored()
    leads: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        metric, _, part = row["metric"].partition("|")
        if part:
            kind, _, name = part.partition(":")
            names = judged.slices.setdefault(row["task"], {}).setdefault(kind, {})
            names.setdefault(name, (row["users"], {}))[1][row["model"]] = row["value"]
            continue
        judged.metrics.setdefault(row["task"], {}).setdefault(row["model"], {})[metric] = row["value"]
        if metric == HEADLINE and row["low"] is not None:
            leads.setdefault(row["task"], {})[row["model"]] = (row["low"], row["high"])
    for task, bounds in leads.items():
        ndcg = {model: values[HEADLINE] for model, values in judged.metrics[task].items()}
        judged.verdicts[task] = verdict(
            {model: Interval(ndcg[HYBRID] - ndcg[model], *of) for model, of in bounds.items()}
        )
    return judged
