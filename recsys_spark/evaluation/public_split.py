"""Our models on a published split, in the figures that papers print for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Als
from recsys_spark.evaluation.baselines.known import known_of, require_driver_size
from recsys_spark.evaluation.baselines.suite import all_lists, models_of_pairs
from recsys_spark.evaluation.judgement import lead_figures
from recsys_spark.evaluation.metrics.metrics import averages, by_user, scores_of, tallies
from recsys_spark.evaluation.metrics.significance import Interval, Paired, paired_bootstrap, paired_scores
from recsys_spark.evaluation.split_files import Split
from recsys_spark.models.als.fit import fit_als
from recsys_spark.names import ALS, NEW_ITEMS_ONLY
from recsys_spark.ranking.top_k import top_k
from recsys_spark.runtime.checkpoints import checkpointed

K = 20  # recall@20 and ndcg@20 are what is printed for these splits
JUDGED_BY = f"ndcg@{K}"
TASK = NEW_ITEMS_ONLY  # items of train are masked


@dataclass(frozen=True)
class SplitJudgement:
    """values[model][metric], and what they stand on.

    `best` is the model of the highest NDCG@20; leads[model][other], of the best and of ALS, is by how much
    its NDCG@20 is above the other's, with a paired bootstrap interval over the users.
    """

    values: dict[str, dict[str, float]]
    best: str
    leads: dict[str, dict[str, Interval]]
    users: int
    items: int
    train_pairs: int
    test_pairs: int
    notes: tuple[str, ...]

    def figures(self) -> dict[str, dict[str, float]]:
        """`values`, and beside them leads such as als_leads_ndcg@20, …_low, …_high."""
        figures = {model: dict(values) for model, values in self.values.items()}
        for leader, leads in self.leads.items():
            for model, lead in leads.items():
                figures[model].update(lead_figures(leader, JUDGED_BY, lead))
        return figures


def judge_split(
    spark: SparkSession, split: Split, *, als: Als, seed: int, samples: int = 2_000
) -> SplitJudgement:
    """ALS and the baselines that need pairs only, trained on `train` and judged by `test`.

    Every pair weighs 1. Lists are of the items of train, without those that the user has there. Averages
    are over all users of the test; those who are not in train count with what a model gives a stranger.
    recall divides by the user's n test items, recall_capped by min(K, n); see `evaluation.metrics.metrics`.

    spark: the session that trains, ranks and judges.
    split: distinct pairs of user and item to learn from and to be judged by, on the driver.
    als: the settings that ALS is trained with.
    seed: of the baselines that draw, and of the bootstrap.
    samples: bootstrap samples of each interval, from 1.

    Raises ConfigError where train has more pairs than the driver takes.
    """
    require_driver_size(len(split.train))
    pairs = _table(split.train).append_column("strength", pa.array([1.0] * len(split.train)))
    judged = sorted({user for user, _ in split.test})
    known = known_of(
        pairs.append_column("events", pa.array([1] * len(split.train), pa.int64())).append_column(
            "is_excluded", pa.array([False] * len(split.train))
        ),
        items=pairs.column("item_id"),
        judged=pa.chunked_array([judged], pa.string()),
    )
    preferences = checkpointed(spark.createDataFrame(pairs))
    models, notes = models_of_pairs(known, seed=seed)
    columns = ["task", "model", "user_id", "item_id", "rank"]
    others = all_lists(spark, models, known, k=K, tasks=[TASK]).select(columns)
    ranked = checkpointed(_als_lists(preferences, judged, als).select(columns).unionByName(others))
    wanted = spark.createDataFrame(_table(split.test))
    size = len(known.item_ids)
    tallied = checkpointed(tallies(ranked, wanted, ks=[K], item_popularity=None))
    values: dict[str, dict[str, float]] = {name: {} for name in (ALS, *models)}
    for row in averages(tallied, ks=[K], catalogue_size=size).collect():
        values[row["model"]][row["metric"]] = float(row["value"])
    listed = [name for name in values if JUDGED_BY in values[name]]  # ALS has no list for strangers
    best = max(listed, key=lambda name: (values[name][JUDGED_BY], name))
    per_user = by_user(scores_of(tallied, ks=[K]), ks=[K])
    paired = paired_scores(per_user, metric=JUDGED_BY, models=listed, task=TASK)
    leads = {leader: _leads(paired, leader, samples=samples, seed=seed) for leader in {ALS, best} & {*listed}}
    counts = (len(judged), size, len(split.train), len(split.test))
    return SplitJudgement(values, best, leads, *counts, (*split.notes, *notes))


def _leads(paired: Paired, leader: str, *, samples: int, seed: int) -> dict[str, Interval]:
    """By how much the leader's NDCG@20 is above each other model's."""
    return {
        other: paired_bootstrap(paired.difference(leader, other), samples=samples, seed=seed)
        for other in paired.values
        if other != leader
    }


def _als_lists(preferences: DataFrame, judged: Sequence[str], als: Als) -> DataFrame:
    """(task, model, user_id, item_id, rank) by the factors of our trainer and our kernel."""
    factors = fit_als(preferences, als, is_measured=False)
    users = preferences.sparkSession.createDataFrame(pa.table({"user_id": pa.array(judged, pa.string())}))
    ranked = top_k(
        factors.users.select("user_id", "factors").join(users, on="user_id", how="left_semi"),
        factors.items.select("item_id", "factors"),
        k=K,
        exclude=preferences.select("user_id", "item_id"),
    )
    return ranked.withColumns({"task": F.lit(TASK), "model": F.lit(ALS)})


def _table(pairs: Sequence[tuple[str, str]]) -> Any:
    users, items = zip(*pairs, strict=True)
    return pa.table({"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())})
