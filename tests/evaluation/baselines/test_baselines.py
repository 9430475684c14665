"""Baselines against plain Python: their scores, their masks, and the one order in which all are listed."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from operator import mul

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from recsys_spark.errors import ConfigError
from recsys_spark.evaluation.baselines import item2vec, known, latent, nearest, rated, simple, suite
from recsys_spark.evaluation.baselines.known import Known, dense_rows, known_of
from recsys_spark.evaluation.baselines.scored import model_lists
from recsys_spark.models.als.linear import item_vectors
from recsys_spark.models.neighbours import best_columns, bm25
from recsys_spark.models.neighbours import nearest as nearest_rows
from tests.evaluation.metrics.oracle import cosine

Pairs = dict[tuple[str, str], float]


def made(
    pairs: Pairs,
    *,
    items: list[str],
    judged: list[str],
    excluded: set[tuple[str, str]] = frozenset(),
    ratings: Pairs | None = None,
) -> Known:
    """Known of {(user, item): strength}; the events of a pair are its strength, rounded up."""
    table = pa.table(
        {
            "user_id": [user for user, _ in pairs],
            "item_id": [item for _, item in pairs],
            "strength": pa.array(list(pairs.values()), pa.float64()),
            "events": pa.array([math.ceil(value) for value in pairs.values()], pa.int64()),
            "is_excluded": [pair in excluded for pair in pairs],
        }
    )
    if ratings is not None:
        table = table.append_column("rating", pa.array([ratings.get(pair) for pair in pairs], pa.float64()))
    return known_of(table, items=pa.chunked_array([items]), judged=pa.chunked_array([judged], pa.string()))


def some_pairs(seed: int, users: int = 30, items: int = 25) -> Pairs:
    rng = random.Random(seed)
    drawn = {(f"u{rng.randrange(users):02d}", f"i{int(items * rng.random() ** 2):02d}") for _ in range(200)}
    return {pair: rng.choice([0.5, 1.0, 2.0, 3.0]) for pair in sorted(drawn)}


def listed(model: str, score, of: Known, k: int) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for batch in model_lists(model, score, of, k=k):
        for row in batch.to_pylist():
            assert row["model"] == model
            found[row["task"], row["user_id"]].append(row["item_id"])
            assert row["rank"] == len(found[row["task"], row["user_id"]])
    return dict(found)


def test_the_best_columns_are_those_of_a_sort_with_ties_by_column():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, size=(200, 40)).astype(np.float64)  # ties everywhere
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[7] = -np.inf
    scores[8, 3:] = np.nan
    index, value = best_columns(scores, 12)
    for row in range(200):
        may = [column for column in range(40) if scores[row, column] > -np.inf]
        expected = sorted(may, key=lambda column: (-scores[row, column], column))[:12]
        assert index[row].tolist() == expected + [-1] * (12 - len(expected))
        assert value[row, : len(expected)].tolist() == scores[row, expected].tolist()


@pytest.mark.parametrize("keeps_self", [True, False])
def test_nearest_rows_are_those_of_all_cosines_sorted(keeps_self):
    rng = np.random.default_rng(2)
    dense = rng.integers(0, 3, size=(60, 15)) * (rng.random((60, 15)) < 0.3)
    dense[5] = dense[9]  # equal rows: the lower one stands first
    dense[11] = 0
    found = nearest_rows(sparse.csr_matrix(dense), k=7, keeps_self=keeps_self).toarray()
    units = (dense / np.sqrt(np.maximum((dense**2).sum(axis=1), 1))[:, None]).tolist()
    for row in range(60):
        # In the order of the columns, as the loop adds: cosines that are equal are then equal to the last bit.
        cosines = {other: sum(map(mul, units[row], units[other])) for other in range(60)}
        may = [other for other, cosine in cosines.items() if cosine > 0 and (keeps_self or other != row)]
        best = sorted(may, key=lambda other: (-cosines[other], other))[:7]
        assert np.flatnonzero(found[row]).tolist() == sorted(best)
        assert found[row, best].tolist() == [cosines[other] for other in best]


def test_nearest_rows_refuse_negative_values():
    with pytest.raises(ValueError, match="negative"):
        nearest_rows(sparse.csr_matrix(np.array([[1.0, -1.0]])), k=1, keeps_self=True)


def test_bm25_by_hand():
    counts = sparse.csr_matrix(np.array([[2.0, 1.0], [0.0, 1.0]]))
    # rows of length 3 and 1, mean 2; the second column is in both rows, the first in one
    rare, common = math.log(1 + 1.5 / 1.5), math.log(1 + 0.5 / 2.5)
    long, short = 1.2 * (0.25 + 0.75 * 1.5), 1.2 * (0.25 + 0.75 * 0.5)
    expected = [[2 * 2.2 / (2 + long) * rare, 2.2 / (1 + long) * common], [0.0, 2.2 / (1 + short) * common]]
    assert bm25(counts).toarray() == pytest.approx(np.array(expected))


def test_lists_hold_what_may_be_ranked_and_not_what_is_excluded_or_for_new_items_was_had():
    pairs = {("v", "a"): 2.0, ("v", "b"): 0.0, ("v", "gone"): 5.0, ("w", "a"): 1.0, ("w", "c"): 0.0}
    of = made(pairs, items=list("abcd"), judged=["w", "v", "new"], excluded={("w", "c")})
    found = listed("popularity_ever", simple.popularity(of), of, k=4)
    assert found == {
        ("repeats_allowed", "v"): ["a", "b", "c", "d"],  # 'gone' is not for sale
        ("new_items_only", "v"): ["c", "d"],  # 'b' weighs nothing, but was had
        ("repeats_allowed", "w"): ["a", "b", "d"],
        ("new_items_only", "w"): ["b", "d"],
        ("repeats_allowed", "new"): ["a", "b", "c", "d"],
        ("new_items_only", "new"): ["a", "b", "c", "d"],
    }


def test_blocks_of_users_change_nothing(monkeypatch):
    of = made(some_pairs(3), items=[f"i{n:02d}" for n in range(25)], judged=[f"u{n:02d}" for n in range(30)])
    whole = listed("m", nearest.item_knn(of), of, k=5)
    monkeypatch.setattr("recsys_spark.evaluation.baselines.scored.CELLS_AT_ONCE", 60)
    assert listed("m", nearest.item_knn(of), of, k=5) == whole


def test_popularity_counts_users_and_frequency_counts_events():
    of = made({("u", "a"): 3.0, ("u", "b"): 1.0, ("v", "b"): 1.0}, items=list("ab"), judged=["u", "v"])
    assert simple.popularity(of)(of.judged).tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert simple.personal_frequency(of)(of.judged).tolist() == [[3.0, 1.0], [0.0, 1.0]]


def test_recent_popularity_takes_the_counts_of_known_items():
    of = made({("u", "a"): 1.0}, items=list("abc"), judged=["u"])
    counts = pa.table({"item_id": ["c", "elsewhere", "a"], "users": [7, 9, 2]})
    assert simple.recent_popularity(of, counts)(of.judged).tolist() == [[2.0, 0.0, 7.0]]


def test_chance_gives_a_user_the_same_list_whoever_else_is_judged():
    items = [f"i{n}" for n in range(50)]
    alone, together = (made({}, items=items, judged=judged) for judged in (["u"], ["a", "u", "z"]))
    found = listed("random", simple.at_random(together, seed=7), together, k=10)
    assert (
        listed("random", simple.at_random(alone, seed=7), alone, k=10)["new_items_only", "u"]
        == (found["new_items_only", "u"])
    )
    assert len({tuple(items) for items in found.values()}) == 3
    assert (
        listed("random", simple.at_random(alone, seed=8), alone, k=10)["new_items_only", "u"]
        != (found["new_items_only", "u"])
    )


def test_item_knn_adds_the_cosines_of_a_users_items():
    pairs = some_pairs(5)
    of = made(pairs, items=[f"i{n:02d}" for n in range(25)], judged=[f"u{n:02d}" for n in range(30)])
    weights = bm25(of.strength.T.tocsr()).toarray()
    norms = np.linalg.norm(weights, axis=1)
    units = weights / np.where(norms > 0, norms, 1)[:, None]
    expected = np.zeros((30, 25))
    for (user, item), strength in pairs.items():
        expected[int(user[1:])] += math.log1p(strength) * units @ units[int(item[1:])]
    assert nearest.item_knn(of, k=25)(of.judged) == pytest.approx(expected)
    closest = nearest_rows(bm25(of.strength.T.tocsr()), k=3, keeps_self=True)
    assert nearest.item_knn(of, k=3)(of.judged) == pytest.approx((of.taste @ closest).toarray())


def test_user_knn_adds_what_similar_users_have():
    of = made(
        {
            ("u", "a"): 1.0,
            ("u", "b"): 1.0,
            ("v", "a"): 1.0,
            ("v", "b"): 1.0,
            ("v", "c"): 1.0,
            ("w", "d"): 1.0,
        },
        items=list("abcd"),
        judged=["u", "w"],
    )
    assert listed("user_knn", nearest.user_knn(of), of, k=1) == {
        ("repeats_allowed", "u"): ["a"],
        ("new_items_only", "u"): ["c"],
        ("repeats_allowed", "w"): ["d"],
        ("new_items_only", "w"): ["a"],
    }


@pytest.mark.parametrize("of_items", [True, False], ids=["item_knn", "user_knn"])
def test_plain_cosines_are_of_the_strengths_themselves(of_items):
    pairs = some_pairs(11)
    of = made(pairs, items=[f"i{n:02d}" for n in range(25)], judged=[f"u{n:02d}" for n in range(30)])
    by_item, by_user = defaultdict(dict), defaultdict(dict)
    for (user, item), strength in pairs.items():
        by_item[item][user] = by_user[user][item] = strength
    expected = np.zeros((30, 25))
    for (user, item), strength in pairs.items():
        u, i, taste = int(user[1:]), int(item[1:]), math.log1p(strength)
        if of_items:
            for other in by_item:
                expected[u, int(other[1:])] += taste * cosine(by_item[item], by_item[other])
        else:
            for other in by_user:
                expected[int(other[1:]), i] += taste * cosine(by_user[user], by_user[other])
    make = nearest.item_knn if of_items else nearest.user_knn
    assert make(of, k=30, weights=nearest.plain)(of.judged) == pytest.approx(expected)
    models, _ = suite.models_of_pairs(of, seed=7)
    name = "item_knn_cosine" if of_items else "user_knn_cosine"
    assert models[name]()(of.judged) == pytest.approx(expected)


def some_ratings(seed: int) -> Pairs:
    """Half points from 0 to 5 in 30 users' pairs with 25 items; some users and items have one only."""
    rng = random.Random(seed)
    return {pair: rng.randrange(11) / 2 for pair in some_pairs(seed)}


def usual_ratings(ratings: Pairs) -> tuple[float, dict[str, float], dict[str, float], Pairs]:
    """mu, b_u, b_i and what they leave, from their definitions."""
    mean = math.fsum(ratings.values()) / len(ratings)
    items, users = defaultdict(list), defaultdict(list)
    for (_, item), rating in ratings.items():
        items[item].append(rating - mean)
    of_item = {item: math.fsum(rests) / (25 + len(rests)) for item, rests in items.items()}
    for (user, item), rating in ratings.items():
        users[user].append(rating - mean - of_item[item])
    of_user = {user: math.fsum(rests) / (10 + len(rests)) for user, rests in users.items()}
    rest = {
        (user, item): rating - mean - of_user[user] - of_item[item]
        for (user, item), rating in ratings.items()
    }
    return mean, of_user, of_item, rest


def alike(one: dict[str, float], other: dict[str, float]) -> float:
    """Pearson's correlation over what both have, shrunk."""
    both = sorted(set(one) & set(other))
    norms = sum(one[key] ** 2 for key in both) * sum(other[key] ** 2 for key in both)
    if len(both) < 2 or norms == 0:
        return 0.0
    product = sum(one[key] * other[key] for key in both)
    return product / math.sqrt(norms) * (len(both) - 1) / (len(both) - 1 + 100)


@pytest.mark.parametrize("k", [2, 30])
@pytest.mark.parametrize("of_items", [True, False], ids=["item_pearson", "user_pearson"])
def test_pearsons_neighbours_correct_what_is_usual_of_user_and_item(of_items, k):
    ratings = some_ratings(12)
    excluded = {pair for pair, rating in ratings.items() if rating < 2}
    strengths = {pair: 0.0 if pair in excluded else 1.0 for pair in ratings}
    of = made(
        strengths,
        items=[f"i{n:02d}" for n in range(25)],
        judged=[f"u{n:02d}" for n in range(30)],
        excluded=excluded,
        ratings=ratings,
    )
    mean, of_user, of_item, rest = usual_ratings(ratings)
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for (user, item), left in rest.items():
        row, column = (item, user) if of_items else (user, item)
        rows[row][column] = left
    likeness = {
        row: {other: s for other in rows if other != row and (s := alike(rows[row], rows[other])) > 0}
        for row in rows
    }
    expected, moved = np.full((30, 25), mean), 0
    for u in range(30):
        for i in range(25):
            user, item = f"u{u:02d}", f"i{i:02d}"
            expected[u, i] += of_user.get(user, 0.0) + of_item.get(item, 0.0)
            row, column = (item, user) if of_items else (user, item)
            near = sorted(likeness.get(row, {}).items(), key=lambda one: (-one[1], one[0]))[:k]
            having = [(s, rows[other][column]) for other, s in near if column in rows[other]]
            if having:
                expected[u, i] += sum(s * left for s, left in having) / sum(s for s, _ in having)
                moved += 1
    assert moved > 50
    make = rated.item_pearson if of_items else rated.user_pearson
    assert make(of, k=k)(of.judged) == pytest.approx(expected, abs=1e-9)
    found = rated.bias(of)(of.judged)
    assert found[3, 4] == pytest.approx(mean + of_user["u03"] + of_item["i04"], abs=1e-9)


def test_predictions_are_of_the_pairs_asked_for_and_stay_on_the_scale(monkeypatch):
    ratings = some_ratings(13)
    names = [f"i{n:02d}" for n in range(25)]
    of = made(dict.fromkeys(ratings, 1.0), items=names, judged=[], ratings=ratings)
    pairs = [*list(ratings)[::7], ("stranger", "i01"), ("u01", "gone")]
    table = pa.table({"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]})
    monkeypatch.setattr(rated, "CELLS_AT_ONCE", 60)
    found = rated.predictions(of, table, low=2.0, high=3.0).to_pylist()
    assert {row["model"] for row in found} == {"bias", "item_knn_pearson", "user_knn_pearson"}
    users, items = of.user_ids.to_pylist(), of.item_ids.to_pylist()
    for model, make in {"bias": rated.bias, **rated.PEARSON}.items():
        scores = make(of)(np.arange(len(users)))
        told = {(row["user_id"], row["item_id"]): row["predicted"] for row in found if row["model"] == model}
        assert told == {
            (user, item): pytest.approx(min(max(scores[users.index(user), items.index(item)], 2.0), 3.0))
            for user, item in pairs[:-2]
        }
    assert {2.0, 3.0} & {row["predicted"] for row in found}


def checkerboard() -> tuple[Known, dict[str, set[str]]]:
    """Even users have even items and odd ones odd; each lacks two of their colour, which must come first."""
    rng = random.Random(4)
    pairs, missing = {}, {}
    for user in range(40):
        own = [item for item in range(24) if item % 2 == user % 2]
        kept = rng.sample(own, 10)
        pairs |= {(f"u{user:02d}", f"i{item:02d}"): 1.0 for item in kept}
        missing[f"u{user:02d}"] = {f"i{item:02d}" for item in own if item not in kept}
    return made(pairs, items=[f"i{n:02d}" for n in range(24)], judged=sorted(missing)), missing


@pytest.mark.parametrize(
    "model",
    [nearest.item_knn, nearest.user_knn, lambda of: latent.svd(of, rank=2)],
    ids=["item_knn", "user_knn", "svd"],
)
def test_a_model_of_taste_finds_what_a_checkerboard_lacks(model):
    of, missing = checkerboard()
    found = listed("m", model(of), of, k=2)
    assert {user: set(found["new_items_only", user]) for user in missing} == missing


def test_svd_is_the_projection_on_the_leading_directions():
    of = made(some_pairs(6), items=[f"i{n:02d}" for n in range(25)], judged=[f"u{n:02d}" for n in range(30)])
    taste = np.log1p(of.strength.toarray())
    u, s, v = np.linalg.svd(taste, full_matrices=False)
    expected = (u[:, :4] * s[:4]) @ v[:4]
    assert latent.svd(of, rank=4)(of.judged) == pytest.approx(expected[of.judged], abs=1e-9)
    assert latent.svd(of, rank=999)(of.judged).shape == (30, 25)


def test_svd_of_nothing_gives_zeros():
    of = made({}, items=list("ab"), judged=["u"])
    assert latent.svd(of)(of.judged).tolist() == [[0.0, 0.0]]


def test_the_raw_sum_adds_the_product_of_factors_and_the_cosine_of_words():
    of = made({("u", "a"): 1.0, ("u", "b"): 3.0}, items=list("abc"), judged=["u", "v"])
    words = sparse.csr_matrix(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
    users, items = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    profile = np.array([1.0 + 3 * 0.6, 3 * 0.8])
    profile /= np.linalg.norm(profile)
    expected = users @ items.T
    expected[0] += words.toarray() @ profile
    found = latent.raw_sum(of, users=users, items=items, words=words)(of.judged)
    assert found == pytest.approx(expected)


def test_factors_lie_at_their_ids_places():
    rows = pa.table({"item_id": ["c", "x", "a"], "factors": [[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]})
    ids = pa.array(["a", "b", "c"])
    assert dense_rows(rows, id_column="item_id", ids=ids).tolist() == [[3, 4], [0, 0], [1, 2]]
    assert dense_rows(rows.slice(0, 0), id_column="item_id", ids=ids).shape == (3, 0)


def test_item2vec_brings_together_what_shares_baskets_and_leaves_rare_items_out(frame):
    rng = random.Random(9)
    events, pairs = [], defaultdict(float)
    for basket in range(240):
        side, user = basket % 2, f"u{basket % 12:02d}"
        for item in rng.sample(range(8), 5):
            pairs[user, f"i{side}{item}"] += 1.0
            events.append(
                (
                    f"e{basket}-{item}",
                    user,
                    f"i{side}{item}",
                    f"2024-01-01 00:00:{basket % 60:02d}",
                    f"b{basket}",
                )
            )
    events.append(("e", "u00", "rare", "2024-01-01 00:00:00", "b0"))
    schema = "event_id string, user_id string, item_id string, event_at string, basket_id string"
    vectors = item_vectors(frame(schema, events), size=item2vec.SIZE, seed=7)
    items = [f"i{side}{item}" for side in range(2) for item in range(8)]
    assert sorted(vectors.column("item_id").to_pylist()) == items
    of = made(dict(pairs), items=[*items, "rare"], judged=["u00", "u01"])
    found = listed("item2vec", item2vec.item2vec(of, vectors), of, k=8)
    assert {item[:2] for item in found["repeats_allowed", "u00"]} == {"i0"}
    assert {item[:2] for item in found["repeats_allowed", "u01"]} == {"i1"}
    assert "rare" not in {item for items in found.values() for item in items}


def test_item2vec_of_rare_items_only_has_no_vectors_and_no_lists(frame):
    schema = "event_id string, user_id string, item_id string, event_at string, basket_id string"
    vectors = item_vectors(frame(schema, [("e", "u", "a", "2024-01-01", None)]), size=9, seed=7)
    of = made({("u", "a"): 1.0}, items=["a"], judged=["u"])
    assert listed("item2vec", item2vec.item2vec(of, vectors), of, k=2) == {}


def test_bpr_is_left_out_with_a_sentence_where_its_library_is_missing(monkeypatch):
    of = made({("u", "a"): 1.0}, items=["a"], judged=["u"])
    monkeypatch.setattr(latent, "BPR_LIBRARY", "no_such_library")
    models, notes = suite.models_of_pairs(of, seed=7)
    assert "bpr" not in models
    assert len(notes) == 1
    assert "implicit is not installed" in notes[0]


@pytest.mark.skipif(not latent.has_bpr(), reason="the library implicit is not installed")
def test_bpr_finds_what_a_checkerboard_lacks():
    of, missing = checkerboard()
    found = listed("m", latent.bpr(of, seed=7, rank=4), of, k=2)
    right = sum(len(set(found["new_items_only", user]) & missing[user]) for user in missing)
    assert right > 0.9 * 2 * len(missing)


def test_more_pairs_than_the_driver_takes_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(known, "MAX_PAIRS", 1)
    with pytest.raises(
        ConfigError, match=r"2 pairs .* on the driver, for up to 1\. Next: leave the baselines out"
    ):
        made({("u", "a"): 1.0, ("u", "b"): 1.0}, items=["a"], judged=["u"])


def test_all_lists_are_one_frame_in_the_columns_of_lists(spark):
    of = made(some_pairs(8), items=[f"i{n:02d}" for n in range(25)], judged=["u01", "u02"])
    models, _ = suite.models_of_pairs(of, seed=7)
    frame = suite.all_lists(spark, models, of, k=3)
    assert frame.columns == ["task", "model", "user_id", "rank", "item_id", "score"]
    assert frame.schema["rank"].dataType.simpleString() == "int"
    lengths = frame.groupBy("task", "model", "user_id").count().collect()
    assert len(lengths) == 2 * len(models) * 2
    assert {row["count"] for row in lengths} == {3}
