"""The gate on a night's preferences: what models are trained on is judged before any is."""

from __future__ import annotations

from pyspark.sql import functions as F

from recsys_spark.data.events import PAIR
from recsys_spark.data.gates import judge as quality
from recsys_spark.data.gates.figures import (
    counted,
    duplicate_keys,
    preference_figures,
    recorded,
    unknown_items,
)
from recsys_spark.data.gates.past_nights import past_nights
from recsys_spark.data.gates.suites import preference_check
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_ITEMS, SILVER_PREFERENCES

_KIND = "preferences"


def judge_preferences(job: Job) -> dict[tuple[str, str], float]:
    """The figures of the night's preferences as stored, for ops.metrics.

    Raises QualityGateError where an expectation fails; the night's preferences are then deleted, so that
    no later stage can train on them. They are judged as stored because making them twice would cost more.
    """
    thresholds = job.settings.quality
    pairs = job.read(SILVER_PREFERENCES).where(F.col("run_date") == F.lit(job.run_date))
    figures = counted(pairs, preference_figures(cap=job.settings.preferences.cap))
    figures["unknown_items"] = unknown_items(pairs, job.read(SILVER_ITEMS))
    figures["duplicate_keys"] = duplicate_keys(pairs, PAIR)
    past = past_nights(
        job.lake, _KIND, run_date=job.run_date, nights=thresholds.history_nights, adds_up=False
    )
    check = preference_check(figures, quality=thresholds, run_date=job.run_date, past=past)
    results = quality.judged(job, [check], stage=_KIND)
    if not all(result.is_success for result in results):
        job.lake.delete(SILVER_PREFERENCES, f"run_date = DATE '{job.run_date}'")
    quality.require_success(results, what=f"the preferences of {job.run_date} were not kept")
    return recorded(_KIND, figures)
