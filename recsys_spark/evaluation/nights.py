"""A night judged: by the weeks before its run date, by each user's last event, or by the weeks after it."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import functions as F

from recsys_spark.data.events import EVENT
from recsys_spark.data.reading import events_on, liked_on, preferences_on
from recsys_spark.errors import ConfigError, InputError, NothingToJudgeError
from recsys_spark.evaluation.backtest import judge, window_backtest
from recsys_spark.evaluation.judgement import RATINGS, Backtest, Judgement
from recsys_spark.evaluation.split import leave_last_one
from recsys_spark.evaluation.weights.fit import weigh_once
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import MODEL_METRICS, SILVER_INTERACTIONS
from recsys_spark.models.versions import (
    last_one_version,
    preferences_of,
    train_earlier_once,
    train_once,
)
from recsys_spark.names import HEADLINE
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.rows import frame_of


def judge_by_window(job: Job, *, with_baselines: bool = False) -> Judgement:
    """Train (once) on data up to `window_days` before the run date, judge by the days since, and store.

    Baselines, where they are judged, are stored with the rest, until the night is judged again. Raises
    NothingToJudgeError where no events are old enough, or none are young enough.
    """
    days, cutoff = job.settings.evaluation.window_days, cutoff_of(job)
    if not _is_known(job, cutoff):
        raise NothingToJudgeError(
            f"no events on or before {cutoff}: nothing to train a backtest of {days} days on."
        )
    pairs = checkpointed(preferences_on(job, cutoff))
    version = train_earlier_once(job, cutoff, pairs)
    weigh_once(job, version, cutoff)
    backtest = window_backtest(job, version=version, cutoff=cutoff, preferences=pairs, days=days)
    judgement = judge(job, backtest, with_baselines=with_baselines)
    _store(job, version, judgement)
    return judgement


def judge_by_last_one(job: Job, *, with_baselines: bool = False) -> Judgement:
    """Train (once) on all events up to the run date but each user's last, and judge by that one.

    For comparison with published figures: models know other users' later events. Not stored.
    """
    day, version = job.run_date, last_one_version(job)
    earlier, last = leave_last_one(liked_on(job, day))
    # Of all events, not of the liked ones: what speaks against an item is no test, and stays known.
    known = events_on(job, day).join(last.select(*EVENT), on=list(EVENT), how="left_anti")
    pairs = checkpointed(preferences_on(job, day, events=known))
    if pairs.isEmpty():
        raise InputError(f"no user has two events up to {day}: nothing to learn from but the last ones.")
    train_once(job, version, day, pairs, events=earlier)
    # As configured: every window to learn weights on holds some of the events that are asked for.
    weigh_once(job, version, day, may_learn=False)
    backtest = Backtest(version, day, pairs, earlier, last, day, day, when=f"up to {day}")
    return judge(job, backtest, with_baselines=with_baselines)


def cutoff_of(job: Job) -> date:
    """The last day that the models of the night's backtest know."""
    return job.run_date - timedelta(days=job.settings.evaluation.window_days)


def _is_known(job: Job, cutoff: date) -> bool:
    """Whether any event is old enough to train a backtest on."""
    early = job.read(SILVER_INTERACTIONS).where(F.col("event_date") <= F.lit(cutoff))
    return not early.isEmpty()


def judge_by_weeks_after(job: Job, *, with_baselines: bool = False) -> Judgement:
    """Judge the night's own models by the weeks after its run date: for demonstrations only.

    Raises ConfigError where the night has not been trained, NothingToJudgeError where those weeks are not
    known.
    """
    preferences = checkpointed(preferences_of(job))
    if preferences.isEmpty():
        raise ConfigError(
            f"the night of {job.run_date} has no models. Next: recsys run --env {job.settings.env} "
            f"--run-date {job.run_date}"
        )
    backtest = window_backtest(
        job,
        version=job.run.run_id,
        cutoff=job.run_date,
        preferences=preferences,
        days=job.settings.evaluation.window_days,
    )
    return judge(job, backtest, with_baselines=with_baselines)


def _store(job: Job, version: str, judgement: Judgement) -> None:
    """One row per task, model and metric; NDCG@10 of all but the hybrid carries its lead as low, high.

    Slices are metrics such as ndcg@10|segment:gold. Errors of predicted ratings are of the task "ratings",
    where `users` is the number of ratings.
    """
    figures = [
        (task, model, metric, value, judgement.users.get(task, 0))
        for task, models in judgement.values.items()
        for model, values in models.items()
        for metric, value in sorted(values.items())
    ]
    if judgement.ratings:
        figures += [
            (RATINGS, model, metric, value, judgement.ratings.pairs)
            for model, values in judgement.ratings.values.items()
            for metric, value in sorted(values.items())
        ]
    span = (version, judgement.judged_from, judgement.judged_to)
    rows = [
        (*span, task, model, metric, value, *_bounds(judgement, task, model, metric), users)
        for task, model, metric, value, users in (*figures, *judgement.slice_rows())
    ]
    frame = frame_of(job.spark, rows, MODEL_METRICS.schema)
    job.overwrite_partition(MODEL_METRICS, frame, model_version=version)


def _bounds(judgement: Judgement, task: str, model: str, metric: str) -> tuple[float | None, float | None]:
    interval = judgement.differences.get(task, {}).get(model) if metric == HEADLINE else None
    return (interval.low, interval.high) if interval else (None, None)
