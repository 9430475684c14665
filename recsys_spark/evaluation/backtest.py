"""Lists from data up to a cutoff, judged by what users did afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import COMPONENTS, TASKS
from recsys_spark.data.reading import liked_on
from recsys_spark.errors import InputError
from recsys_spark.evaluation.baselines.suite import Learnt, all_lists, collected, models_of_night
from recsys_spark.evaluation.metrics import averages, by_user, scores_of, tallies
from recsys_spark.evaluation.significance import Interval, paired_bootstrap, paired_differences
from recsys_spark.evaluation.slices import by_history
from recsys_spark.evaluation.split import drawn, relevant_pairs
from recsys_spark.lake.job import Job
from recsys_spark.lake.kept import kept
from recsys_spark.lake.tables import (
    MODEL_CONTENT_VECTORS,
    MODEL_ITEM_FACTORS,
    MODEL_POPULARITY,
    SILVER_ITEMS,
)
from recsys_spark.models.repurchase import with_fade
from recsys_spark.models.versions import of_version
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import hybrids, in_groups, on_sale, rankable_catalogue, user_factors

SLICED = "ndcg@10"
_BROADCAST_ITEMS = 1_000_000  # whose popularity is sent to every executor, some 50 bytes each


@dataclass(frozen=True)
class Trial:
    """What is judged by what: the lists of a model version as of a day, and the events that tell.

    `known` are the events that the version may know, `preferences` what they make; `wanted` (user_id,
    item_id, …) are the events to judge by, from `first` to `last`. `told` ends "no events …".
    """

    version: str
    cutoff: date
    preferences: DataFrame
    known: DataFrame
    wanted: DataFrame
    first: date
    last: date
    told: str


@dataclass(frozen=True)
class Judgement:
    """Figures of every model for both tasks: values[task][model][metric], and what they stand on.

    sliced[task][history] is the number of users with that much history, and their NDCG@10 by model.
    `baselines` are the models beside hybrid and components; `notes` are sentences for people.
    """

    judged_from: date
    judged_to: date
    values: dict[str, dict[str, dict[str, float]]]
    users: dict[str, int]
    differences: dict[str, dict[str, Interval]]
    sliced: dict[str, dict[str, tuple[int, dict[str, float]]]] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def variants_of(hybrids: Sequence[Variant]) -> list[Variant]:
    """The hybrid of each task, and each component alone."""
    alone = {name: {other: float(other == name) for other in COMPONENTS} for name in COMPONENTS}
    return [
        variant
        for blend in hybrids
        for variant in (blend, *(Variant(blend.task, name, weights) for name, weights in alone.items()))
    ]


def window_events(job: Job, cutoff: date, *, days: int) -> DataFrame:
    """Liked events of the `days` days after the cutoff's own day; only a judge may read these."""
    end = cutoff + timedelta(days=days)
    return liked_on(job, end).where(F.col("event_date") > F.lit(cutoff))


def window_trial(job: Job, *, version: str, cutoff: date, preferences: DataFrame, days: int) -> Trial:
    """The version as of the cutoff, judged by the `days` days that follow it."""
    return Trial(
        version=version,
        cutoff=cutoff,
        preferences=preferences,
        known=liked_on(job, cutoff),
        wanted=window_events(job, cutoff, days=days),
        first=cutoff + timedelta(days=1),
        last=cutoff + timedelta(days=days),
        told=f"in the {days} days after {cutoff}",
    )


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


def judged_items(events: DataFrame, before: DataFrame, *, at_most: int, purpose: str = "judge") -> DataFrame:
    """`relevant_items` of so many of the users with events, or of all; computed once."""
    users = kept(drawn(events, at_most, purpose=purpose))
    wanted, had = (rows.join(users, "user_id", "left_semi") for rows in (events, before))
    return kept(relevant_items(wanted, had))


def judge(job: Job, trial: Trial, *, with_baselines: bool = False) -> Judgement:
    """Judge hybrid, components and, where asked for, baselines by the trial's events.

    All are judged on the same users, relevant items and metrics. Averages are over the users with such
    events, or evaluation.max_users of them, drawn by their ids. Raises InputError where there are none,
    ConfigError where there are more pairs than the baselines take.
    """
    settings = job.settings
    preferences = trial.preferences
    relevant = judged_items(trial.wanted, preferences, at_most=settings.evaluation.max_users)
    catalogue = rankable_catalogue(job, trial.version, trial.cutoff)
    try:
        if relevant.isEmpty():
            raise InputError(
                f"no events {trial.told}: nothing to judge the lists by. "
                "Next: deliver those days, or choose an earlier --run-date."
            )
        users = relevant.select("user_id").distinct()
        k = max(*settings.evaluation.k, 10)
        blends = hybrids(job, trial.version)
        ranked = lists(
            in_groups(job, users, trial.cutoff),
            preferences=with_fade(
                preferences.join(F.broadcast(users), "user_id", "left_semi"),
                events=trial.known,
                run_date=trial.cutoff,
                settings=settings.history,
            ),
            user_factors=user_factors(job, trial.version),
            catalogue=catalogue,
            variants=variants_of([blends[task] for task in TASKS]),
            k=k,
            partitions=job.spark.sparkContext.defaultParallelism,
        ).select("task", "model", "user_id", "item_id", "rank")
        baselines: tuple[str, ...] = ()
        notes: tuple[str, ...] = ()
        if with_baselines:
            beside, baselines, notes = _baselines(job, trial, preferences, users, k)
            ranked = ranked.unionByName(beside.select(*ranked.columns))
        return _measured(job, trial, kept(ranked), relevant, preferences, baselines, notes)
    finally:
        catalogue.shared.release()


def _baselines(
    job: Job, trial: Trial, preferences: DataFrame, users: DataFrame, k: int
) -> tuple[DataFrame, tuple[str, ...], tuple[str, ...]]:
    """The baselines' lists, their names, and a sentence for each that is left out."""
    known = collected(preferences, items=on_sale(job.read(SILVER_ITEMS), trial.cutoff), judged=users)
    learnt = Learnt(
        user_factors=user_factors(job, trial.version),
        item_factors=of_version(job, MODEL_ITEM_FACTORS, trial.version),
        vectors=of_version(job, MODEL_CONTENT_VECTORS, trial.version),
        popularity=of_version(job, MODEL_POPULARITY, trial.version),
        events=trial.known,
    )
    models, notes = models_of_night(known, learnt, seed=job.settings.evaluation.seed)
    return all_lists(job.spark, models, known, k=k), tuple(models), notes


def _measured(
    job: Job,
    trial: Trial,
    ranked: DataFrame,
    relevant: DataFrame,
    preferences: DataFrame,
    baselines: tuple[str, ...],
    notes: tuple[str, ...],
) -> Judgement:
    settings = job.settings.evaluation
    size = on_sale(job.read(SILVER_ITEMS), trial.cutoff).count()
    liked = preferences.where(F.col("strength") > 0)
    users = max(liked.select("user_id").distinct().count(), 1)
    popularity = liked.groupBy("item_id").agg((F.count(F.lit(1)) / F.lit(users)).alias("popularity"))
    ks = sorted({*settings.k, 10})
    popularity = kept(popularity)
    if popularity.count() <= _BROADCAST_ITEMS:
        popularity = F.broadcast(popularity)
    tallied = kept(tallies(ranked, relevant, ks=ks, item_popularity=popularity))
    scores = scores_of(tallied, ks=ks)
    rows = averages(tallied, ks=ks, catalogue_size=size).collect()
    values: dict[str, dict[str, dict[str, float]]] = {task: {} for task in TASKS}
    judged: dict[str, int] = {}
    for row in rows:
        values[row["task"]].setdefault(row["model"], {})[row["metric"]] = float(row["value"])
        if row["metric"] == "ndcg@10":
            judged[row["task"]] = int(row["users"])
    per_user = by_user(scores, ks=[10])
    others = [*COMPONENTS, *baselines]
    differences = {task: _differences(job, per_user, task, others) for task in TASKS if judged.get(task)}
    sliced = _sliced(by_history(scores, preferences, metric=SLICED))
    return Judgement(trial.first, trial.last, values, judged, differences, sliced, baselines, notes)


def _differences(job: Job, per_user: DataFrame, task: str, others: Sequence[str]) -> dict[str, Interval]:
    """NDCG@10 of the hybrid minus each other model's, with a paired bootstrap interval over users."""
    settings = job.settings.evaluation
    differences = paired_differences(per_user, metric="ndcg@10", a="hybrid", others=others, task=task)
    return {
        name: paired_bootstrap(values, samples=settings.bootstrap_samples, seed=settings.seed)
        for name, values in differences.items()
    }


def _sliced(rows: DataFrame) -> dict[str, dict[str, tuple[int, dict[str, float]]]]:
    found: dict[str, dict[str, tuple[int, dict[str, float]]]] = {}
    for row in rows.collect():
        _, models = found.setdefault(row["task"], {}).setdefault(row["history"], (int(row["users"]), {}))
        models[row["model"]] = float(row["value"])
    return found
