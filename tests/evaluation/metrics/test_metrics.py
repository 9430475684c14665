"""Ranking metrics against hand-computed values, a plain-Python oracle and MLlib's own metrics."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from typing import Any

import pytest
from pyspark.mllib.evaluation import RankingMetrics
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.evaluation.metrics.list_metrics import exposures
from recsys_spark.evaluation.metrics.metrics import (
    discounts,
    order_free_mean,
    per_user_metrics,
    ranking_metrics,
    scores_of,
)
from recsys_spark.evaluation.metrics.tally import tally
from tests.evaluation.metrics import oracle

LISTS = "task string, model string, user_id string, item_id string, rank int"
RELEVANT = "task string, user_id string, item_id string"
POPULARITY = "item_id string, popularity double"
VECTORS = "item_id string, terms array<int>, weights array<float>"
CATALOGUE = [f"i{number:03d}" for number in range(60)]
KS = (1, 5, 10)
BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"


def values_of(metrics: DataFrame) -> dict[tuple[str, ...], float]:
    """{(task, model[, user], metric): value}, and no key twice."""
    keys = [name for name in metrics.columns if name not in ("value", "users")]
    rows = metrics.collect()
    values = {tuple(row[key] for key in keys): row["value"] for row in rows}
    assert len(values) == len(rows)
    return values


def random_batch(seed: int, users: int = 200) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Lists of two models in two tasks, with gaps, short and missing lists, ties and repeated items."""
    rng = random.Random(seed)
    lists, relevant = [], []
    for task in ("repeats_allowed", "new_items_only"):
        for number in range(users):
            user = f"u{number}"
            if rng.random() < 0.85:
                relevant += [(task, user, item) for item in rng.sample(CATALOGUE, rng.randint(1, 15))]
            for model in ("als", "popularity"):
                if rng.random() < 0.15:
                    continue
                pool = CATALOGUE[:50] if model == "als" else CATALOGUE[:20]
                for slot in range(1, rng.choice([3, 10, 14]) + 1):
                    rank = max(1, slot + rng.choice([0, 0, 0, 0, 1, -1]))
                    lists.append((task, model, user, rng.choice(pool), rank))
    return lists, relevant


def random_vectors(seed: int) -> dict[str, dict[int, float]]:
    """Vectors of any length; some items have no word, some no vector."""
    rng = random.Random(seed)
    return {
        item: {term: rng.choice([0.25, 0.5, 1.5]) for term in sorted(rng.sample(range(9), rng.randint(0, 5)))}
        for item in CATALOGUE[:45]
    }


def grouped(
    lists: list[tuple[Any, ...]], relevant: list[tuple[Any, ...]]
) -> tuple[dict[tuple[str, str], dict[str, list[tuple[int, str]]]], dict[str, dict[str, set[str]]]]:
    by_model: dict[tuple[str, str], dict[str, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    wanted: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for task, model, user, item, rank in lists:
        by_model[task, model][user].append((rank, item))
    for task, user, item in relevant:
        wanted[task][user].add(item)
    return by_model, wanted


def test_one_user_by_hand(frame):
    #                position   1    2    3    4    5        relevant: a, c, z, so n = 3
    lists = frame(LISTS, [("t", "m", "u", item, rank) for rank, item in enumerate("abcde", start=1)])
    relevant = frame(RELEVANT, [("t", "u", "a"), ("t", "u", "c"), ("t", "u", "z")])
    discounts = [1 / math.log2(position + 1) for position in range(1, 6)]
    expected = {
        "precision@2": 1 / 2,
        "recall@2": 1 / 3,
        "recall_capped@2": 1 / 2,
        "f1@2": 0.4,
        "ndcg@2": 1 / (1 + discounts[1]),
        "map@2": (1 / 1) / 2,
        "mrr@2": 1.0,
        "hit_rate@2": 1.0,
        "precision@5": 2 / 5,
        "recall@5": 2 / 3,
        "recall_capped@5": 2 / 3,
        "f1@5": 0.5,
        "ndcg@5": (1 + discounts[2]) / (1 + discounts[1] + discounts[2]),
        "map@5": (1 / 1 + 2 / 3) / 3,
        "mrr@5": 1.0,
        "hit_rate@5": 1.0,
    }
    found = values_of(per_user_metrics(lists, relevant, ks=(2, 5)))
    assert found == {
        ("t", "m", "u", metric): pytest.approx(value, abs=1e-12) for metric, value in expected.items()
    }


def test_list_metrics_by_hand(frame):
    # Exposures at 2 over a catalogue of 4: a 2, b 1, c 1, d 0. Popularity sums to 8; d was never seen.
    lists = frame(
        LISTS,
        [
            ("t", "m", "u1", "a", 1),
            ("t", "m", "u1", "b", 2),
            ("t", "m", "u2", "a", 1),
            ("t", "m", "u2", "c", 2),
        ],
    )
    relevant = frame(RELEVANT, [("t", "u1", "a")])
    popularity = frame(POPULARITY, [("a", 4.0), ("b", 2.0), ("e", 2.0)])
    expected = {
        "coverage@1": 1 / 4,
        "gini@1": 3 / 4,
        "mean_popularity@1": 4.0,
        "novelty@1": 1.0,
        "coverage@2": 3 / 4,
        "gini@2": 3 / 8,
        "mean_popularity@2": ((4 + 2) / 2 + (4 + 0) / 2) / 2,
        "novelty@2": ((1 + 2) / 2 + (1 + 2) / 2) / 2,
        "diversity@2": ((1 - 0.6) + (1 - 0.0)) / 2,
    }
    vectors = frame(VECTORS, [("a", [1], [2.0]), ("b", [1, 3], [3.0, 4.0]), ("c", [3], [1.0])])
    metrics = ranking_metrics(
        lists, relevant, ks=(1, 2), item_popularity=popularity, item_vectors=vectors, catalogue_size=4
    )
    rows = {row["metric"]: (row["value"], row["users"]) for row in metrics.collect()}
    assert {metric: rows[metric] for metric in expected} == {
        metric: (pytest.approx(value, abs=1e-12), 2) for metric, value in expected.items()
    }
    assert rows["ndcg@1"] == (1.0, 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_user_agrees_with_the_oracle(frame, seed):
    lists, relevant = random_batch(seed)
    by_model, wanted = grouped(lists, relevant)
    expected = {
        (task, model, user, metric): value
        for (task, model), of_users in by_model.items()
        for user, items in wanted[task].items()
        for k in KS
        for metric, value in oracle.user_metrics(of_users.get(user, []), items, k).items()
    }
    found = values_of(per_user_metrics(frame(LISTS, lists), frame(RELEVANT, relevant), ks=KS))
    assert found == {key: pytest.approx(value, abs=1e-9) for key, value in expected.items()}


def test_the_averages_agree_with_the_oracle(frame):
    lists, relevant = random_batch(3)
    by_model, wanted = grouped(lists, relevant)
    popularity = {item: float(number % 17) for number, item in enumerate(CATALOGUE[:40])}
    vectors = random_vectors(3)
    expected = {}
    for (task, model), of_users in by_model.items():
        for k in KS:
            users = [
                oracle.user_metrics(of_users.get(user, []), items, k)
                | {f"serendipity@{k}": oracle.serendipity(of_users.get(user, []), items, k, popularity)}
                for user, items in wanted[task].items()
            ]
            for metric in users[0]:
                expected[task, model, metric] = (oracle.mean([user[metric] for user in users]), len(users))
            for metric, value in oracle.list_metrics(of_users, k, popularity, len(CATALOGUE)).items():
                expected[task, model, metric] = (value, len(of_users))
            unlike = [oracle.diversity(ranked, k, vectors) for ranked in of_users.values()]
            if known := [value for value in unlike if value is not None]:
                expected[task, model, f"diversity@{k}"] = (oracle.mean(known), len(known))
    assert {"serendipity@5", "diversity@5"} <= {metric for *_, metric in expected}
    assert ("repeats_allowed", "als", "diversity@1") not in expected
    metrics = ranking_metrics(
        frame(LISTS, lists),
        frame(RELEVANT, relevant),
        ks=KS,
        item_popularity=frame(POPULARITY, list(popularity.items())),
        item_vectors=frame(VECTORS, [(item, list(of), list(of.values())) for item, of in vectors.items()]),
        catalogue_size=len(CATALOGUE),
    )
    found = {
        (row["task"], row["model"], row["metric"]): (row["value"], row["users"]) for row in metrics.collect()
    }
    assert found == {key: (pytest.approx(value, abs=1e-9), users) for key, (value, users) in expected.items()}


def test_agrees_with_mllib_where_the_definitions_agree(spark: SparkSession, frame):
    rng = random.Random(4)
    users = {
        f"u{n}": (rng.sample(CATALOGUE, 12), rng.sample(CATALOGUE, rng.randint(1, 15))) for n in range(200)
    }
    lists = [
        ("t", "m", user, item, rank)
        for user, (shown, _) in users.items()
        for rank, item in enumerate(shown, 1)
    ]
    relevant = [("t", user, item) for user, (_, wanted) in users.items() for item in wanted]
    theirs = RankingMetrics(spark.sparkContext.parallelize(list(users.values()), 2))
    found = values_of(
        ranking_metrics(
            frame(LISTS, lists), frame(RELEVANT, relevant), ks=(10,), item_popularity=None, catalogue_size=60
        )
    )
    assert found["t", "m", "ndcg@10"] == pytest.approx(theirs.ndcgAt(10), abs=1e-9)
    assert found["t", "m", "map@10"] == pytest.approx(theirs.meanAveragePrecisionAt(10), abs=1e-9)
    assert found["t", "m", "precision@10"] == pytest.approx(theirs.precisionAt(10), abs=1e-9)
    assert found["t", "m", "recall@10"] == pytest.approx(theirs.recallAt(10), abs=1e-9)


def test_a_user_without_a_list_counts_as_zero(frame):
    lists = frame(LISTS, [("t", "m", "u1", "a", 1)])
    relevant = frame(RELEVANT, [("t", "u1", "a"), ("t", "u2", "a"), ("t", "u3", "a"), ("t", "u4", "a")])
    metrics = ranking_metrics(lists, relevant, ks=(1,), item_popularity=None, catalogue_size=10)
    by_metric = {row["metric"]: (row["value"], row["users"]) for row in metrics.collect()}
    accuracy = ("precision", "recall", "recall_capped", "f1", "ndcg", "map", "mrr", "hit_rate")
    assert by_metric == {f"{name}@1": (0.25, 4) for name in accuracy} | {
        "coverage@1": (0.1, 1),
        "gini@1": (0.9, 1),
    }


def test_a_user_without_relevant_items_is_left_out_of_the_averages(frame):
    lists = frame(LISTS, [("t", "m", "u1", "a", 1), ("t", "m", "u2", "b", 1)])
    relevant = frame(RELEVANT, [("t", "u1", "a"), ("other", "u2", "b")])
    metrics = ranking_metrics(lists, relevant, ks=(1,), item_popularity=None, catalogue_size=10)
    rows = {row["metric"]: (row["value"], row["users"]) for row in metrics.collect()}
    assert rows["precision@1"] == (1.0, 1)
    assert rows["coverage@1"] == (0.2, 2)


def test_an_item_shown_twice_is_credited_once_at_its_best_rank(frame):
    # a holds slots 2 and 3; c stays in slot 4: the wasted slot is not closed up.
    lists = frame(
        LISTS,
        [("t", "m", "u", "x", 1), ("t", "m", "u", "a", 3), ("t", "m", "u", "a", 2), ("t", "m", "u", "c", 4)],
    )
    relevant = frame(RELEVANT, [("t", "u", "a"), ("t", "u", "c"), ("t", "u", "c")])
    found = values_of(per_user_metrics(lists, relevant, ks=(3, 4)))
    assert found["t", "m", "u", "precision@3"] == pytest.approx(1 / 3)
    assert found["t", "m", "u", "precision@4"] == pytest.approx(2 / 4)
    assert found["t", "m", "u", "map@4"] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_items_on_the_same_rank_do_not_share_a_slot(frame):
    lists = frame(LISTS, [("t", "m", "u", item, 1) for item in "abc"])
    relevant = frame(RELEVANT, [("t", "u", item) for item in "abc"])
    found = values_of(per_user_metrics(lists, relevant, ks=(1, 2)))
    assert found["t", "m", "u", "precision@1"] == 1.0
    assert found["t", "m", "u", "recall@1"] == pytest.approx(1 / 3)
    assert found["t", "m", "u", "recall@2"] == pytest.approx(2 / 3)


def test_a_perfect_list_scores_exactly_one(frame):
    lists = frame(LISTS, [("t", "m", "u", item, rank) for rank, item in enumerate(CATALOGUE[:20], start=1)])
    relevant = frame(RELEVANT, [("t", "u", item) for item in CATALOGUE[:7]])
    found = values_of(per_user_metrics(lists, relevant, ks=(1, 5, 7, 20)))
    assert {
        found["t", "m", "u", f"{name}@{k}"] for name in ("ndcg", "recall_capped") for k in (1, 5, 7, 20)
    } == {1.0}


def test_random_lists_score_as_chance_says(frame):
    rng = random.Random(5)
    users, n, k, size = 400, 6, 12, len(CATALOGUE)
    lists = [
        ("t", "m", f"u{u}", item, rank)
        for u in range(users)
        for rank, item in enumerate(rng.sample(CATALOGUE, 20), 1)
    ]
    relevant = [("t", f"u{u}", item) for u in range(users) for item in rng.sample(CATALOGUE, n)]
    found = values_of(
        ranking_metrics(
            frame(LISTS, lists), frame(RELEVANT, relevant), ks=(k,), item_popularity=None, catalogue_size=size
        )
    )
    discounts = [1 / math.log2(position + 1) for position in range(1, k + 1)]
    # Hits are hypergeometric: k draws without return from `size` items of which n are relevant.
    deviation = math.sqrt(k * (n / size) * (1 - n / size) * (size - k) / (size - 1) / users)
    assert found["t", "m", f"precision@{k}"] == pytest.approx(n / size, abs=4 * deviation / k)
    assert found["t", "m", f"recall@{k}"] == pytest.approx(k / size, abs=4 * deviation / n)
    assert found["t", "m", f"ndcg@{k}"] == pytest.approx(
        (n / size) * sum(discounts) / sum(discounts[:n]), abs=0.03
    )
    assert found["t", "m", f"hit_rate@{k}"] == pytest.approx(
        1 - math.comb(size - n, k) / math.comb(size, k), abs=0.09
    )
    assert found["t", "m", f"coverage@{k}"] == 1.0
    assert found["t", "m", f"gini@{k}"] < 0.1


def test_a_relevant_item_is_serendipitous_unless_it_is_among_the_most_popular(frame):
    lists = frame(LISTS, [("t", "m", "u", item, rank) for rank, item in enumerate("abcx", start=1)])
    relevant = frame(RELEVANT, [("t", "u", item) for item in "abc"])
    # a is of the first two, b, which is as popular as d, of the first three; c is unknown.
    popularity = frame(POPULARITY, [("a", 9.0), ("d", 3.0), ("b", 3.0), ("e", 1.0), ("z", 0.0)])
    found = values_of(
        ranking_metrics(lists, relevant, ks=(1, 2, 3), item_popularity=popularity, catalogue_size=9)
    )
    assert [found["t", "m", f"serendipity@{k}"] for k in (1, 2, 3)] == pytest.approx([0.0, 0.0, 1 / 3])


def test_partitioning_does_not_change_one_bit(frame):
    lists, relevant = random_batch(6)
    popularity = [(item, 1 / (number + 3)) for number, item in enumerate(CATALOGUE)]
    vectors = [(item, list(of), list(of.values())) for item, of in random_vectors(6).items()]

    def metrics(partitions: int) -> dict[tuple[str, ...], float]:
        frames = [
            frame(s, r, partitions)
            for s, r in (
                (LISTS, lists),
                (RELEVANT, relevant),
                (POPULARITY, popularity),
                (VECTORS, vectors),
            )
        ]
        found = ranking_metrics(
            *frames[:2], ks=KS, item_popularity=frames[2], item_vectors=frames[3], catalogue_size=60
        )
        return values_of(found)

    assert metrics(1) == metrics(7)


def test_lists_that_come_in_pieces_are_put_together(spark: SparkSession, frame):
    lists, relevant = random_batch(9, users=40)
    frames = frame(LISTS, lists, 5), frame(RELEVANT, relevant, 3)
    usual = spark.conf.get(BATCH)

    def rows(at_once: int) -> tuple[list[tuple[Any, ...]], ...]:
        parts = tally(
            *frames,
            ks=KS,
            by=("task", "model"),
            discounts=discounts(10),
            item_popularity=None,
            at_once=at_once,
        )
        scores = scores_of(parts, ks=KS).collect()
        shown = exposures(parts.where("item_id IS NOT NULL"), ks=KS, by=("task", "model"), catalogue_size=60)
        return sorted(map(tuple, scores)), sorted(map(tuple, shown.collect()))

    whole = rows(100_000)
    assert len(whole[0]) == len({row[:3] for row in whole[0]}) > 100, "one row a list"
    spark.conf.set(BATCH, "3")
    try:
        assert rows(1) == rows(7) == whole
    finally:
        spark.conf.set(BATCH, usual)


def test_a_mean_is_the_same_to_the_last_bit_however_rows_are_spread(frame):
    rng = random.Random(8)
    values = [rng.random() for _ in range(5_000)]

    def means(partitions: int) -> tuple[float, float]:
        column = F.col("value")
        spread = frame("value double", [(value,) for value in values], partitions)
        return tuple(spread.agg(order_free_mean(column), F.avg(column)).collect()[0])

    (one, plain_one), (other, plain_other) = means(1), means(7)
    assert one == other == pytest.approx(oracle.mean(values), abs=1e-14)
    assert plain_one != plain_other  # on this input a plain mean does depend on it


def test_groups_and_the_truth_meet_on_the_columns_they_share(frame):
    lists = frame(
        "segment string, user_id string, item_id string, rank int",
        [("s1", "u1", "a", 1), ("s2", "u1", "b", 1)],
    )
    relevant = frame("user_id string, item_id string", [("u1", "a")])
    found = values_of(per_user_metrics(lists, relevant, ks=(1,), by=("segment",)))
    assert {key[0]: value for key, value in found.items() if key[2] == "recall@1"} == {"s1": 1.0, "s2": 0.0}


def test_nothing_shown_within_k_is_no_coverage_and_no_gini(frame):
    lists = frame(LISTS, [("t", "m", "u", "a", 4)])
    relevant = frame(RELEVANT, [("t", "u", "a")])
    popularity = frame(POPULARITY, [("a", 1.0)])
    found = values_of(
        ranking_metrics(lists, relevant, ks=(2, 4), item_popularity=popularity, catalogue_size=2)
    )
    assert found["t", "m", "coverage@2"] == 0.0
    assert found["t", "m", "coverage@4"] == 0.5
    assert found["t", "m", "mrr@4"] == 0.25
    assert not {("t", "m", "gini@2"), ("t", "m", "novelty@2"), ("t", "m", "mean_popularity@2")} & found.keys()


def test_novelty_is_the_same_for_counts_and_for_shares(frame):
    lists, relevant = random_batch(7, users=30)
    counts = [(item, float(number + 1)) for number, item in enumerate(CATALOGUE)]

    def novelty(scale: float) -> float:
        popularity = frame(POPULARITY, [(item, count * scale) for item, count in counts])
        found = values_of(
            ranking_metrics(
                frame(LISTS, lists),
                frame(RELEVANT, relevant),
                ks=(5,),
                item_popularity=popularity,
                catalogue_size=60,
            )
        )
        return found["repeats_allowed", "als", "novelty@5"]

    assert novelty(1.0) == pytest.approx(novelty(1 / 500), abs=1e-9)


@pytest.mark.parametrize("rank", [0, None])
def test_a_rank_below_one_stops_the_evaluation(frame, rank):
    lists = frame(LISTS, [("t", "m", "u", "a", rank)])
    with pytest.raises(Exception, match="rank counts from 1, got"):
        per_user_metrics(lists, frame(RELEVANT, [("t", "u", "a")]), ks=(5,)).collect()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"ks": ()}, "ks: got"),
        ({"ks": (0, 5)}, "ks: got"),
        ({"ks": (5, 5)}, "ks: got"),
        ({"catalogue_size": 0}, "catalogue_size: got 0"),
        ({"by": ()}, "by: got"),
        ({"by": ("task", "user_id")}, "by: got"),
    ],
)
def test_wrong_knobs_are_refused_before_any_work(frame, knobs, message):
    lists, relevant = frame(LISTS, [("t", "m", "u", "a", 1)]), frame(RELEVANT, [("t", "u", "a")])
    right: dict[str, Any] = {"ks": (5,), "item_popularity": None, "catalogue_size": 10}
    with pytest.raises(ValueError, match=message):
        ranking_metrics(lists, relevant, **{**right, **knobs})


def test_the_result_has_the_promised_columns(frame):
    lists, relevant = frame(LISTS, [("t", "m", "u", "a", 1)]), frame(RELEVANT, [("t", "u", "a")])
    averages = ranking_metrics(
        lists, relevant, ks=(1,), item_popularity=frame(POPULARITY, [("a", 1.0)]), catalogue_size=1
    )
    users = per_user_metrics(lists, relevant, ks=(1,))
    assert averages.dtypes == [
        ("task", "string"),
        ("model", "string"),
        ("metric", "string"),
        ("value", "double"),
        ("users", "bigint"),
    ]
    assert users.dtypes == [
        ("task", "string"),
        ("model", "string"),
        ("user_id", "string"),
        ("metric", "string"),
        ("value", "double"),
    ]
    assert averages.where(F.col("value").isNull()).count() == 0
