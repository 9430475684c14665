"""Lists from data up to a cutoff, judged by what users did afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.reading import events_on, liked_on
from recsys_spark.data.snapshots import versions_on
from recsys_spark.errors import NothingOnSaleError, NothingToJudgeError
from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.evaluation.baselines.rated import predictions
from recsys_spark.evaluation.baselines.suite import Learnt, all_lists, collected, models_of_night
from recsys_spark.evaluation.judgement import Backtest, Judgement, measured
from recsys_spark.evaluation.metrics.ratings import (
    RatingJudgement,
    judged_ratings,
    new_ratings,
    with_prediction,
)
from recsys_spark.evaluation.sentences import weight_sentences
from recsys_spark.evaluation.split import drawn, relevant_pairs
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    MODEL_CONTENT_VECTORS,
    MODEL_ITEM_FACTORS,
    MODEL_POPULARITY,
)
from recsys_spark.models.history import with_fade
from recsys_spark.models.versions import of_version
from recsys_spark.names import COMPONENTS, REPEATS_ALLOWED, TASKS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import hybrids, in_groups, on_sale, rankable_catalogue, user_factors
from recsys_spark.runtime.checkpoints import checkpointed


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


def window_backtest(job: Job, *, version: str, cutoff: date, preferences: DataFrame, days: int) -> Backtest:
    """The version as of the cutoff, judged by the `days` days that follow it.

    job: its lake is read; its settings say whether predicted ratings are judged as well.
    version: of the models to judge.
    cutoff: the last day that these models know.
    preferences: what users had up to the cutoff, rows as `preferences_on` gives them.
    days: how many days after the cutoff judge, from 1.
    """
    return Backtest(
        version=version,
        cutoff=cutoff,
        preferences=preferences,
        known=liked_on(job, cutoff),
        wanted=window_events(job, cutoff, days=days),
        first=cutoff + timedelta(days=1),
        last=cutoff + timedelta(days=days),
        when=f"in the {days} days after {cutoff}",
        rated=_rated(job, cutoff, days=days),
    )


def _rated(job: Job, cutoff: date, *, days: int) -> DataFrame | None:
    """The ratings of the window that were not given before it, where ALS predicts ratings."""
    event_type = job.settings.preferences.ratings.event_type
    if job.settings.als.feedback != "explicit" or not event_type:
        return None
    before = events_on(job, cutoff).where(F.col("event_type") == event_type)
    window = events_on(job, cutoff + timedelta(days=days)).where(F.col("event_date") > F.lit(cutoff))
    return new_ratings(window, before, event_type=event_type)


def relevant_items(events: DataFrame, before: DataFrame) -> DataFrame:
    """(task, user_id, item_id): what each user had in the window; for new_items_only, for the first time."""
    before_pairs = before.select("user_id", "item_id").distinct()
    per_task = [
        relevant_pairs(events, before_pairs, repeats_allowed=task == REPEATS_ALLOWED).select(
            F.lit(task).alias("task"), "user_id", "item_id"
        )
        for task in TASKS
    ]
    return per_task[0].unionByName(per_task[1])


def judged_items(events: DataFrame, before: DataFrame, *, at_most: int, purpose: str = "judge") -> DataFrame:
    """`relevant_items` of so many of the users with events, or of all; computed once."""
    users = checkpointed(drawn(events, at_most, purpose=purpose))
    wanted, had = (rows.join(users, "user_id", "left_semi") for rows in (events, before))
    return checkpointed(relevant_items(wanted, had))


def judge(job: Job, backtest: Backtest, *, with_baselines: bool = False) -> Judgement:
    """Judge hybrid, components and, where asked for, baselines by the backtest's events.

    All are judged on the same users, relevant items and metrics. Averages are over the users with such
    events, or evaluation.max_users of them, drawn by their ids. Raises NothingToJudgeError where there are
    none, or where nothing was on sale; ConfigError where there are more pairs than the baselines take.
    """
    settings = job.settings
    preferences = backtest.preferences
    relevant = judged_items(backtest.wanted, preferences, at_most=settings.evaluation.max_users)
    if relevant.isEmpty():
        raise NothingToJudgeError(
            f"no events {backtest.when}: nothing to judge the lists by. "
            "Next: deliver those days, or choose an earlier --run-date."
        )
    try:
        catalogue = rankable_catalogue(job, backtest.version, backtest.cutoff)
    except NothingOnSaleError as error:
        raise NothingToJudgeError(str(error)) from None
    try:
        users = relevant.select("user_id").distinct()
        k = max(*settings.evaluation.k, 10)
        blends = hybrids(job, backtest.version)
        ranked = lists(
            in_groups(job, users, backtest.cutoff),
            preferences=with_fade(
                preferences.join(F.broadcast(users), "user_id", "left_semi"),
                known=preferences,
                run_date=backtest.cutoff,
                settings=settings.history,
            ),
            user_factors=user_factors(job, backtest.version),
            catalogue=catalogue,
            variants=variants_of([blends[task] for task in TASKS]),
            k=k,
            partitions=job.spark.sparkContext.defaultParallelism,
        ).select("task", "model", "user_id", "item_id", "rank")
        baselines: tuple[str, ...] = ()
        notes: tuple[str, ...] = ()
        known = None
        if with_baselines:
            known = collected(
                preferences,
                items=on_sale(versions_on(job.lake, job.settings, "items", backtest.cutoff), backtest.cutoff),
                judged=users,
            )
            beside, baselines, notes = _baselines(job, backtest, known, k)
            ranked = ranked.unionByName(beside.select(*ranked.columns))
        judgement = measured(job, backtest, checkpointed(ranked), relevant, baselines=baselines, notes=notes)
        weights = weight_sentences(blends, settings.blend)
        return replace(judgement, ratings=_ratings(job, backtest, known), weights=weights)
    finally:
        catalogue.release()


def _ratings(job: Job, backtest: Backtest, known: Known | None) -> RatingJudgement | None:
    """Ratings as predicted by the factors, and by the baselines of ratings where pairs are known for them."""
    if backtest.rated is None:
        return None
    scale = job.settings.preferences.ratings
    items = of_version(job, MODEL_ITEM_FACTORS, backtest.version)
    predicted = checkpointed(
        with_prediction(
            backtest.rated,
            user_factors=user_factors(job, backtest.version),
            item_factors=items,
            scale=scale,
        )
    )
    beside = None
    if known is not None and known.ratings.nnz:
        pairs = predicted.where(F.col("predicted").isNotNull()).select("user_id", "item_id").toArrow()
        beside = predictions(known, pairs, low=scale.min, high=scale.max)
    return judged_ratings(predicted, beside)


def _baselines(
    job: Job, backtest: Backtest, known: Known, k: int
) -> tuple[DataFrame, tuple[str, ...], tuple[str, ...]]:
    """The baselines' lists, their names, and a sentence for each that is left out."""
    learnt = Learnt(
        user_factors=user_factors(job, backtest.version),
        item_factors=of_version(job, MODEL_ITEM_FACTORS, backtest.version),
        vectors=of_version(job, MODEL_CONTENT_VECTORS, backtest.version),
        popularity=of_version(job, MODEL_POPULARITY, backtest.version),
        events=backtest.known,
    )
    models, notes = models_of_night(known, learnt, seed=job.settings.evaluation.seed)
    return all_lists(job.spark, models, known, k=k), tuple(models), notes
