"""What the last nights were like: the figures that tonight's batch is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median

from pyspark.sql import functions as F

from recsys_spark.data.gates.figures import BATCH_METRIC, Figures
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import OPS_METRICS

# Nights further back than this many times the wanted number are of another season, and are not read.
_REACH = 10


@dataclass(frozen=True)
class Past:
    """Figures by night, the newest night first; `tonight` is what the same run date took in before."""

    nights: tuple[Figures, ...] = ()
    tonight: Mapping[str, float] = field(default_factory=dict)

    def usual(self, name: str, *, per: str = "") -> float | None:
        """The median over the nights that have the figure, as a share of figure `per` if named."""
        values = [
            night[name] / (night[per] if per else 1.0)
            for night in self.nights
            if name in night and (not per or night.get(per, 0) > 0)
        ]
        return median(values) if values else None

    def with_tonight(self, name: str, value: float) -> float:
        """The figure of the whole night: this batch and the night's earlier ones."""
        return value + self.tonight.get(name, 0.0)


def past_nights(lake: Lake, kind: str, *, run_date: date, nights: int, adds_up: bool) -> Past:
    """As `pasts`, of one kind.

    lake: whose ops.metrics are read.
    kind: what the figures were recorded under: a kind of deliveries, preferences or lists.
    run_date: tonight.
    nights: how many to look back on at most, from 1.
    adds_up: whether the records of a night are parts of one whole.
    """
    return pasts(lake, [kind], run_date=run_date, nights=nights, adds_up=adds_up)[kind]


def pasts(lake: Lake, kinds: Sequence[str], *, run_date: date, nights: int, adds_up: bool) -> dict[str, Past]:
    """Of each kind the newest nights before the run date that recorded figures: one Spark job.

    lake: whose ops.metrics are read.
    kinds: what the figures were recorded under: kinds of deliveries, preferences, lists.
    run_date: tonight; what was recorded under it before is `tonight`, where figures add up.
    nights: how many at most, from 1; none is older than ten times as many days.
    adds_up: True: a night's records are parts of one whole and are summed (kinds of deliveries). False: the
        last record of a night replaces those before it, whatever ran how often (preferences, lists).
    """
    oldest = run_date - timedelta(days=_REACH * nights)
    recent = (
        lake.read(OPS_METRICS)
        .where((F.col("metric") == BATCH_METRIC) & F.substring_index("label", ".", 1).isin(*kinds))
        .where(F.col("run_date").between(F.lit(oldest), F.lit(run_date)))
    )
    value = F.sum("value") if adds_up else F.max_by("value", "recorded_at")
    figures: dict[str, dict[date, Figures]] = {kind: {} for kind in kinds}
    for row in recent.groupBy("run_date", "label").agg(value.alias("value")).collect():
        kind, _, name = row["label"].partition(".")
        figures[kind].setdefault(row["run_date"], {})[name] = row["value"]
    return {kind: _past(by_night, run_date, nights, adds_up=adds_up) for kind, by_night in figures.items()}


def _past(figures: dict[date, Figures], run_date: date, nights: int, *, adds_up: bool) -> Past:
    tonight = figures.pop(run_date, {})
    newest_first = [figures[night] for night in sorted(figures, reverse=True)]
    return Past(tuple(newest_first[:nights]), tonight if adds_up else {})
