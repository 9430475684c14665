"""What a configuration is worth: lists of models as of an earlier day, judged by a window before the test.

    … events that models know … | validation window | the night's own backtest window | run date
                                ^ cutoff            ^ run date − W                    ^ never read: nor
                                  run date − 2 W                                        anything after it

W is evaluation.window_days. The night's backtest judges by the last W days, so a search must not see them:
it is judged by the W days before, by models that know what was before those.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.preferences import liked
from recsys_spark.data.reading import events_on, preferences_on
from recsys_spark.data.snapshots import versions_on
from recsys_spark.errors import InputError
from recsys_spark.evaluation.backtest import judged_items, window_events
from recsys_spark.evaluation.metrics.metrics import user_scores
from recsys_spark.evaluation.metrics.significance import Interval, paired_bootstrap
from recsys_spark.evaluation.weights.fit import weigh_once
from recsys_spark.lake.fingerprint import fingerprint
from recsys_spark.lake.job import Job
from recsys_spark.models.history import with_fade
from recsys_spark.models.versions import train_once
from recsys_spark.names import TASKS
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import hybrids, in_groups, rankable_catalogue, user_factors
from recsys_spark.runtime.checkpoints import checkpointed

K = 10
METRIC = f"ndcg@{K}"
VERSION = "trial"
_OF_EVENT = ("user_id", "item_id", "event_type", "event_at", "quantity", "value")
_OF_ITEM = (
    "item_id",
    "title",
    "category",
    "brand",
    "tags",
    "price",
    "released_at",
    "attributes",
    "is_available",
    "valid_from",
)

# NDCG@10 by task of TASKS and user: float64 [2, U], nan where the task has nothing to judge the user by.
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """Models know the events up to the cutoff's end; the days from first to last judge them."""

    cutoff: date
    first: date
    last: date

    @classmethod
    def of(cls, run_date: date, *, days: int) -> Window:
        """The window of so many days that ends where the night's own backtest window begins."""
        last = run_date - timedelta(days=days)
        cutoff = last - timedelta(days=days)
        return cls(cutoff, cutoff + timedelta(days=1), last)

    @property
    def days(self) -> int:
        return (self.last - self.cutoff).days


@dataclass(frozen=True)
class Evidence:
    """What all trials share: known are the effective events up to the cutoff.

    relevant: (task, user_id, item_id) of the window; users: their ids in order; blank: Scores of no list.
    """

    window: Window
    known: DataFrame
    relevant: DataFrame
    users: dict[str, int]
    blank: Scores


def evidence_of(job: Job, window: Window) -> Evidence:
    """Read once for all trials, so that all are judged alike whatever is delivered meanwhile.

    InputError where there is nothing to learn from, or fewer than two users to judge by.
    """
    known = checkpointed(events_on(job, window.cutoff))
    if known.isEmpty():
        raise InputError(f"no events on or before {window.cutoff}: nothing to train a trial on.")
    events = window_events(job, window.cutoff, days=window.days)
    before = preferences_on(job, window.cutoff, events=known)
    relevant = judged_items(events, before, at_most=job.settings.evaluation.max_users)
    judged = relevant.select("task", "user_id").distinct().collect()
    users = {user: at for at, user in enumerate(sorted({row["user_id"] for row in judged}))}
    if len(users) < 2:
        raise InputError(
            f"{len(users)} users with events from {window.first} to {window.last}: a search needs two at "
            "least, some to choose by and others to confirm it. Next: choose a later --run-date."
        )
    blank = np.full((len(TASKS), len(users)), np.nan)
    for row in judged:
        blank[TASKS.index(row["task"]), users[row["user_id"]]] = 0.0
    return Evidence(window, known, relevant, users, blank)


def evidence_key(job: Job, evidence: Evidence) -> list[tuple[int, int]]:
    """Equal for equal events to learn from and to judge by, equal items, and users' groups where they count.

    In any order. What later nights add, or close from a later day on, changes nothing.
    """
    day = F.lit(evidence.window.cutoff)
    items = versions_on(job.lake, job.settings, "items", evidence.window.cutoff).where(
        F.col("valid_from") <= day
    )
    looked_at = [evidence.known.select(*_OF_EVENT), evidence.relevant, items.select(*_OF_ITEM)]
    if by := job.settings.popularity.by:
        users = versions_on(job.lake, job.settings, "users", evidence.window.cutoff).where(
            F.col("valid_from") <= day
        )
        looked_at.append(users.select("user_id", "valid_from", *by))
    return [fingerprint(rows) for rows in looked_at]


def hybrid_scores(job: Job, evidence: Evidence) -> Scores:
    """Train what a night trains under the job's settings, as of the cutoff, and judge its hybrid.

    Weights are those of the configuration, or learned on the window that ends with the cutoff. `job.models`
    must be empty: versions there are taken for what they are called. A trial of which a component cannot be
    made is none: NothingToLearnError.
    """
    cutoff = evidence.window.cutoff
    pairs = checkpointed(preferences_on(job, cutoff, events=evidence.known))
    events = liked(evidence.known, job.settings.preferences)
    train_once(job, VERSION, cutoff, pairs, events=events, may_lack=False)
    weigh_once(job, VERSION, cutoff)
    return _ranked_scores(job, evidence, pairs)


def _ranked_scores(job: Job, evidence: Evidence, pairs: DataFrame) -> Scores:
    catalogue = rankable_catalogue(job, VERSION, evidence.window.cutoff)
    try:
        ranked = checkpointed(
            lists(
                in_groups(job, evidence.relevant.select("user_id").distinct(), evidence.window.cutoff),
                preferences=with_fade(pairs, run_date=evidence.window.cutoff, settings=job.settings.history),
                user_factors=user_factors(job, VERSION),
                catalogue=catalogue,
                variants=list(hybrids(job, VERSION).values()),
                k=K,
                partitions=job.spark.sparkContext.defaultParallelism,
            ).select("task", "model", "user_id", "item_id", "rank")
        )
    finally:
        catalogue.release()
    scored = user_scores(ranked, evidence.relevant, ks=[K], item_popularity=None)
    rows = scored.where("n > 0").select("task", "user_id", METRIC).collect()
    scores = evidence.blank.copy()
    for row in rows:
        scores[TASKS.index(row["task"]), evidence.users[row["user_id"]]] = row[METRIC]
    return scores


def seen(scores: Scores) -> Scores:
    """Of every other user: those that a search chooses by."""
    return scores[:, ::2]


def unseen(scores: Scores) -> Scores:
    """Of the other half: those that tell whether what was chosen is better."""
    return scores[:, 1::2]


def by_task(scores: Scores) -> dict[str, float]:
    """Each task's mean over its users; a task without users is left out."""
    return {
        task: float(np.nanmean(row))
        for task, row in zip(TASKS, scores, strict=True)
        if not np.isnan(row).all()
    }


def objective(scores: Scores) -> float:
    """What a search maximises: the mean of the tasks' mean NDCG@10, each task counting the same."""
    return float(np.mean([*by_task(scores).values()]))


def gains(before: Scores, after: Scores, *, samples: int, seed: int) -> dict[str, Interval]:
    """How much better `after` is, for each task and for the objective, with a paired bootstrap over users.

    In the objective a user counts for each task by that task's share, so that the mean over users is the
    difference of the two objectives.
    """
    differences = after - before
    per_user = {
        task: row[~np.isnan(row)]
        for task, row in zip(TASKS, differences, strict=True)
        if not np.isnan(row).all()
    }
    shares = [
        np.nan_to_num(row) * row.size / (~np.isnan(row)).sum()
        for row in differences
        if not np.isnan(row).all()
    ]
    per_user["objective"] = np.mean(shares, axis=0)
    return {name: paired_bootstrap(values, samples=samples, seed=seed) for name, values in per_user.items()}
