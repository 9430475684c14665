"""Lists from data up to a cutoff, judged by what users did in the weeks that followed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import COMPONENTS, TASKS
from recsys_spark.data.reading import liked_on
from recsys_spark.errors import InputError
from recsys_spark.evaluation.metrics import averages, by_user, user_scores
from recsys_spark.evaluation.significance import Interval, paired_bootstrap, paired_differences
from recsys_spark.evaluation.split import relevant_pairs
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_ITEMS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import on_sale, rankable_catalogue, user_factors


@dataclass(frozen=True)
class Judgement:
    """Figures of every model for both tasks: values[task][model][metric], and what they stand on."""

    judged_from: date
    judged_to: date
    values: dict[str, dict[str, dict[str, float]]]
    users: dict[str, int]
    differences: dict[str, dict[str, Interval]]


def variants_of(weights: dict[str, dict[str, float]]) -> list[Variant]:
    """The hybrid and each component alone, for both tasks."""
    alone = {name: {other: float(other == name) for other in COMPONENTS} for name in COMPONENTS}
    return [
        Variant(task, model, chosen)
        for task in TASKS
        for model, chosen in {"hybrid": weights[task], **alone}.items()
    ]


def window_events(job: Job, cutoff: date, *, days: int) -> DataFrame:
    """Liked events of the `days` days after the cutoff's own day; only a judge may read these."""
    end = cutoff + timedelta(days=days)
    return liked_on(job, end).where(F.col("event_date") > F.lit(cutoff))


def relevant_items(events: DataFrame, before: DataFrame) -> DataFrame:
    """(task, user_id, item_id): what each user had in the window; for new_items_only, for the first time."""
    before_pairs = before.select("user_id", "item_id").distinct()
    per_task = [
        relevant_pairs(events, before_pairs, repeats_allowed=task == "repeats_allowed").select(
            F.lit(task).alias("task"), "user_id", "item_id"
        )
        for task in TASKS
    ]
    return per_task[0].unionByName(per_task[1])


def judge(job: Job, *, version: str, cutoff: date, preferences: DataFrame, days: int) -> Judgement:
    """Judge the version's lists as of the cutoff by the `days` days that follow it.

    Averages are over the users with events in those days. Raises InputError where there are none.
    """
    settings = job.settings
    events = window_events(job, cutoff, days=days)
    preferences = preferences.persist()
    relevant = relevant_items(events, preferences).persist()
    catalogue = rankable_catalogue(job, version, cutoff)
    try:
        if relevant.isEmpty():
            raise InputError(
                f"no events in the {days} days after {cutoff}: nothing to judge the lists by. "
                "Next: deliver those days, or choose an earlier --run-date."
            )
        ranked = lists(
            relevant.select("user_id").distinct(),
            preferences=preferences,
            user_factors=user_factors(job, version),
            catalogue=catalogue,
            variants=variants_of({task: settings.blend.weights(task) for task in TASKS}),
            k=max(*settings.evaluation.k, 10),
            partitions=job.spark.sparkContext.defaultParallelism,
        ).persist()
        judgement = _measured(job, ranked, relevant, cutoff, days, preferences)
        ranked.unpersist()
        return judgement
    finally:
        catalogue.shared.release()
        relevant.unpersist()
        preferences.unpersist()


def _measured(
    job: Job, ranked: DataFrame, relevant: DataFrame, cutoff: date, days: int, preferences: DataFrame
) -> Judgement:
    settings = job.settings.evaluation
    size = on_sale(job.read(SILVER_ITEMS), cutoff).count()
    preferences = preferences.where(F.col("strength") > 0)
    users = max(preferences.select("user_id").distinct().count(), 1)
    popularity = preferences.groupBy("item_id").agg((F.count(F.lit(1)) / F.lit(users)).alias("popularity"))
    slim = ranked.select("task", "model", "user_id", "item_id", "rank")
    ks = sorted({*settings.k, 10})
    scores = user_scores(slim, relevant, ks=ks, item_popularity=popularity).persist()
    rows = averages(scores, slim, ks=ks, catalogue_size=size).collect()
    values: dict[str, dict[str, dict[str, float]]] = {task: {} for task in TASKS}
    judged: dict[str, int] = {}
    for row in rows:
        values[row["task"]].setdefault(row["model"], {})[row["metric"]] = float(row["value"])
        if row["metric"] == "ndcg@10":
            judged[row["task"]] = int(row["users"])
    per_user = by_user(scores, ks=[10])
    differences = {task: _differences(job, per_user, task) for task in TASKS}
    scores.unpersist()
    return Judgement(cutoff + timedelta(days=1), cutoff + timedelta(days=days), values, judged, differences)


def _differences(job: Job, per_user: DataFrame, task: str) -> dict[str, Interval]:
    """NDCG@10 of the hybrid minus each component's, with a paired bootstrap interval over users."""
    settings = job.settings.evaluation
    differences = paired_differences(per_user, metric="ndcg@10", a="hybrid", others=COMPONENTS, task=task)
    return {
        name: paired_bootstrap(values, samples=settings.bootstrap_samples, seed=settings.seed)
        for name, values in differences.items()
    }
