"""Our models on a published split, in the figures that papers print for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Als
from recsys_spark.evaluation.baselines.known import known_of, require_driver_size
from recsys_spark.evaluation.baselines.suite import all_lists, models_of_pairs
from recsys_spark.evaluation.metrics import ranking_metrics
from recsys_spark.evaluation.split_files import Split
from recsys_spark.lake.kept import kept
from recsys_spark.models.als import fit_als
from recsys_spark.ranking.top_k import top_k

K = 20  # recall@20 and ndcg@20 are what is printed for these splits
TASK = "new_items_only"  # items of train are masked


@dataclass(frozen=True)
class SplitJudgement:
    """values[model][metric], and what they stand on."""

    values: dict[str, dict[str, float]]
    users: int
    items: int
    train_pairs: int
    test_pairs: int
    notes: tuple[str, ...]


def judge_split(spark: SparkSession, split: Split, *, als: Als, seed: int) -> SplitJudgement:
    """ALS and the baselines that need pairs only, trained on `train` and judged by `test`.

    Every pair weighs 1. Lists are of the items of train, without those that the user has there. Averages
    are over all users of the test; those who are not in train count with what a model gives a stranger.
    recall divides by the user's n test items, recall_capped by min(K, n); see `evaluation.metrics`.
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
    preferences = kept(spark.createDataFrame(pairs))
    models, notes = models_of_pairs(known, seed=seed)
    columns = ["task", "model", "user_id", "item_id", "rank"]
    others = all_lists(spark, models, known, k=K, tasks=[TASK]).select(columns)
    ranked = kept(_als_lists(preferences, judged, als).select(columns).unionByName(others))
    wanted = spark.createDataFrame(_table(split.test))
    size = len(known.item_ids)
    rows = ranking_metrics(ranked, wanted, ks=[K], item_popularity=None, catalogue_size=size).collect()
    values: dict[str, dict[str, float]] = {name: {} for name in ("als", *models)}
    for row in rows:
        values[row["model"]][row["metric"]] = float(row["value"])
    return SplitJudgement(
        values, len(judged), size, len(split.train), len(split.test), (*split.notes, *notes)
    )


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
    return ranked.withColumns({"task": F.lit(TASK), "model": F.lit("als")})


def _table(pairs: Sequence[tuple[str, str]]) -> Any:
    users, items = zip(*pairs, strict=True)
    return pa.table({"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())})
