"""What the map from words is worth: items whose every event is taken away, and who would have wanted them.

A tenth of the items, drawn by a hash, loses all its events; models know the rest up to a window before the
run date. The events taken away say who wanted those items, and lists of 50 of the whole catalogue are asked
for them. ALS knows them by the map only, popularity by `cold_items.prior` only: without that what it finds
is 0, with it all of them stand in one place, in the order of their ids. The window's events of all other
items say what the newcomers cost the rest: the same lists with and without factors from words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import digest
from recsys_spark.data.preferences import liked
from recsys_spark.data.reading import events_on, preferences_on
from recsys_spark.errors import InputError
from recsys_spark.evaluation.backtest import window_events
from recsys_spark.evaluation.metrics.metrics import user_scores
from recsys_spark.evaluation.metrics.significance import Interval, paired_bootstrap
from recsys_spark.evaluation.split import drawn
from recsys_spark.evaluation.weights.fit import weigh_once
from recsys_spark.lake.job import Job
from recsys_spark.models.versions import train_once
from recsys_spark.names import ALS, COMPONENTS, CONTENT, HYBRID, NEW_ITEMS_ONLY, POPULARITY
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import hybrids, rankable_catalogue, user_factors
from recsys_spark.runtime.checkpoints import checkpointed

TASK = NEW_ITEMS_ONLY
K, K_REST = 50, 10
ONE_IN = 10  # of the items is withheld
ALONE = (ALS, CONTENT, POPULARITY)  # judged beside the hybrid

Values = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ColdStart:
    """recall: recall@50 of withheld items by model, random: what a list by chance has of them.

    rest: by model NDCG@10 on all other items without factors from words, and what it gains with them;
    rest_recall: what recall@50 of them gains.
    """

    items: int
    users: int
    rest_users: int
    catalogue: int
    random: float
    recall: dict[str, Interval]
    rest: dict[str, tuple[float, Interval]]
    rest_recall: dict[str, Interval]


def judge_cold_start(job: Job, *, draw: str = "withheld") -> ColdStart:
    """Train (once) without the withheld items' events, and judge; whether or not a night maps cold items.

    draw: which tenth is withheld; what was chosen by one draw is to be judged by another.
    InputError where there is nothing to withhold, or nobody to judge by.
    """
    settings = job.settings
    enabled = settings.cold_items.model_copy(update={"enabled": True})
    job = replace(job, settings=settings.model_copy(update={"cold_items": enabled}))
    days = settings.evaluation.window_days
    cutoff = job.run_date - timedelta(days=days)
    is_withheld = F.pmod(F.xxhash64(F.lit(draw), "item_id"), F.lit(ONE_IN)) == 0
    known = checkpointed(events_on(job, cutoff).where(~is_withheld))
    pairs = checkpointed(preferences_on(job, cutoff, events=known).where(~is_withheld))
    version = f"cold-{cutoff:%Y%m%d}-{_key(job, cutoff, draw)}"
    train_once(job, version, cutoff, pairs, events=liked(known, settings.preferences))
    weigh_once(job, version, cutoff, may_learn=False)
    later = window_events(job, cutoff, days=days)
    gone = liked(events_on(job, cutoff), settings.preferences).select("user_id", "item_id")
    trained = pairs.where(F.col("strength") > 0).select("user_id").distinct()
    wanted = checkpointed(
        _judged(gone.union(later.select("user_id", "item_id")).where(is_withheld), trained, pairs, job)
    )
    others = checkpointed(_judged(later.where(~is_withheld), trained, pairs, job))
    if wanted.isEmpty() or others.isEmpty():
        raise InputError(
            f"no user known on {cutoff} had one of the withheld items and another in the {days} days after: "
            "nothing to judge cold items by. Next: a later --run-date, or a longer evaluation.window_days."
        )
    return _measured(job, version, cutoff, pairs, wanted, others)


def _key(job: Job, cutoff: date, draw: str) -> str:
    run, cold = job.run, job.settings.cold_items.model_dump(exclude={"places"})
    return digest([cutoff, run.input_hash, run.config_hash, run.code_hash, cold, draw])[:10]


def _judged(events: DataFrame, trained: DataFrame, pairs: DataFrame, job: Job) -> DataFrame:
    """(user_id, item_id): what users with a model wanted and did not have, of max_users users at most."""
    new = events.select("user_id", "item_id").distinct()
    new = new.join(pairs.select("user_id", "item_id"), on=["user_id", "item_id"], how="left_anti")
    known = checkpointed(new.join(trained, on="user_id", how="left_semi"))
    users = drawn(known, job.settings.evaluation.max_users, purpose="judge")
    return known.join(users, on="user_id", how="left_semi")


def _measured(
    job: Job, version: str, cutoff: date, pairs: DataFrame, wanted: DataFrame, others: DataFrame
) -> ColdStart:
    evaluation = job.settings.evaluation
    users = wanted.select("user_id").union(others.select("user_id")).distinct()
    with_map, size = _ranked(job, version, cutoff, pairs, users, with_cold=True)
    without, _ = _ranked(job, version, cutoff, pairs, users, with_cold=False)
    recalls = _values(with_map, wanted, K, f"recall@{K}")
    after = _values(with_map, others, K_REST, f"ndcg@{K_REST}")
    before = _values(without, others, K_REST, f"ndcg@{K_REST}")
    recalls_after, recalls_before = (_values(rows, others, K, f"recall@{K}") for rows in (with_map, without))

    def interval(values: NDArray[np.float64]) -> Interval:
        return paired_bootstrap(values, samples=evaluation.bootstrap_samples, seed=evaluation.seed)

    return ColdStart(
        items=wanted.select("item_id").distinct().count(),
        users=len(recalls[HYBRID]),
        rest_users=len(before[HYBRID]),
        catalogue=size,
        random=_by_chance(wanted, pairs, size),
        recall={model: interval(values) for model, values in recalls.items()},
        rest={
            model: (float(values.mean()), interval(after[model] - values)) for model, values in before.items()
        },
        rest_recall={
            model: interval(recalls_after[model] - values) for model, values in recalls_before.items()
        },
    )


def _by_chance(wanted: DataFrame, pairs: DataFrame, size: int) -> float:
    """recall@50 of 50 items drawn from those of the catalogue that the user has not had."""
    users = wanted.select("user_id").distinct()
    had = users.join(pairs, on="user_id", how="left").groupBy("user_id").agg(F.count("item_id").alias("had"))
    counts = had.select("had").toArrow().column("had").to_numpy()
    return float(np.mean(np.minimum(1.0, K / np.maximum(size - counts, 1))))


def _ranked(
    job: Job, version: str, cutoff: date, pairs: DataFrame, users: DataFrame, *, with_cold: bool
) -> tuple[DataFrame, int]:
    """Lists of 50 of hybrid and ALONE, and the number of items ranked."""
    hybrid = hybrids(job, version)[TASK]
    alone = [Variant(TASK, name, {other: float(other == name) for other in COMPONENTS}) for name in ALONE]
    catalogue = rankable_catalogue(job, version, cutoff, with_cold=with_cold)
    try:
        ranked = lists(
            users,
            preferences=pairs,
            user_factors=user_factors(job, version),
            catalogue=catalogue,
            variants=[hybrid, *alone],
            k=K,
            partitions=job.spark.sparkContext.defaultParallelism,
        )
        return checkpointed(ranked.select("task", "model", "user_id", "item_id", "rank")), catalogue.size
    finally:
        catalogue.release()


def _values(ranked: DataFrame, relevant: DataFrame, k: int, metric: str) -> dict[str, NDArray[np.float64]]:
    """By model the metric of each user with something relevant, in the order of their ids."""
    judged = relevant.withColumn("task", F.lit(TASK))
    scores = user_scores(ranked, judged, ks=[k], item_popularity=None).where("n > 0")
    rows = scores.select("model", "user_id", metric).orderBy("model", "user_id").toArrow()
    model, value = np.array(rows.column("model").to_pylist()), rows.column(metric).to_numpy()
    return {name: value[model == name] for name in (HYBRID, *ALONE)}
