"""Blended lists against the formula, written out for every user and item."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log1p

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse

from recsys_spark.names import COMPONENTS
from recsys_spark.ranking import blend
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import catalogue_of, lists, sources
from recsys_spark.ranking.reasons import explained
from recsys_spark.ranking.weight_cases import candidates
from recsys_spark.runtime.rows import frame_of
from tests.frames import factor_rows, frames, ids, word_rows

USERS, ITEMS, RANK, TERMS, K = 12, 30, 3, 7, 6
REPEATS = {"als": 0.7, "content": 0.4, "history": 1.5, "popularity": 0.2, "trial": 0.0}
NEW = {"als": 1.0, "content": 0.3, "history": 0.0, "popularity": 0.0, "trial": 2.0}


@pytest.fixture(scope="module")
def world() -> dict:
    """Random factors, words and counts; user 0 has no factors, user 1 no history, item 29 nothing at all."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(USERS, RANK)).astype(np.float32)
    y = draw.normal(size=(ITEMS, RANK)).astype(np.float32)
    t = np.where(draw.random((ITEMS, TERMS)) < 0.4, draw.random((ITEMS, TERMS)), 0).astype(np.float32)
    x[0], y[29], t[29] = 0, 0, 0
    strength = np.where(draw.random((USERS, ITEMS)) < 0.3, draw.random((USERS, ITEMS)) * 4, 0)
    strength[1], strength[:, 29] = 0, 0
    users, new_users = draw.integers(0, 50, ITEMS), draw.integers(0, 9, ITEMS)
    users[29] = new_users[29] = 0
    reference = (np.arange(ITEMS) % 3 > 0) & (np.arange(ITEMS) < 29)
    return {
        "x": x,
        "y": y,
        "t": t,
        "s": strength,
        "n": users,
        "f": new_users,
        "ref": reference,
    }


def oracle(
    world: dict,
    weights: dict[str, float],
    *,
    repeats: bool,
    may: Callable[[int, int], bool] = lambda _user, _item: True,
    kind: Callable[[int], object] = lambda item: item,
    at_most: int = K,
    left: Callable[[int, int], float] = lambda _user, _item: 1.0,
) -> dict[str, list[tuple[str, float]]]:
    """The formula of the blend, user by user, item by item, in float64; then what rules and caps leave."""
    y, t, ref = world["y"].astype(float), world["t"].astype(float), world["ref"]
    counts = {
        "popularity": np.log1p(world["n"]).astype(np.float32),
        "trial": np.log1p(world["f"]).astype(np.float32),
    }
    expected = {}
    for u in range(USERS):
        profile = world["s"][u] @ t
        norm = np.linalg.norm(profile)
        raw = {
            "als": y @ world["x"][u].astype(float),
            "content": t @ (profile / norm if norm else profile),
            **{name: values.astype(float) for name, values in counts.items()},
        }
        score = weights["history"] * np.array([log1p(s) * left(u, i) for i, s in enumerate(world["s"][u])])
        for name, values in raw.items():
            deviation = values[ref].std()
            score = score + (weights[name] * values / deviation if deviation > 1e-12 else 0)
        free = [i for i in range(ITEMS) if (repeats or world["s"][u, i] == 0) and may(u, i)]
        kept: list[int] = []
        for i in sorted(free, key=lambda i: (-round(score[i], 9), i)):
            if len(kept) < K and (kind(i) is None or sum(kind(j) == kind(i) for j in kept) < at_most):
                kept.append(i)
        expected[f"u{u:02d}"] = [(f"i{i:02d}", score[i]) for i in kept]
    return expected


VARIANTS = [Variant("repeats_allowed", "hybrid", REPEATS), Variant("new_items_only", "hybrid", NEW)]
# By the least number of pairs; each component weighs nothing in some bin.
BINS = {
    0: {"als": 0.0, "content": 0.4, "history": 0.0, "popularity": 0.9, "trial": 0.5},
    8: {"als": 0.7, "content": 0.0, "history": 1.5, "popularity": 0.0, "trial": 0.0},
    11: REPEATS,
}


def kind_of(item: int) -> str | None:
    return None if item % 10 == 9 else f"kind {item % 3}"


def is_candidate(item: int) -> bool:
    return item % 4 != 1


def group_of(user: int) -> str | None:
    return [None, "adult", "minor", "unheard of"][user % 4]


def is_excluded(user: int, item: int) -> bool:
    return (user * 7 + item) % 11 == 0


def is_left(user: int, item: int) -> float:
    return (1 + (user + item) % 3) / 3


def ranked_lists(
    spark: SparkSession, world: dict, *, ruled: bool, given: Callable[..., DataFrame] | None = None
) -> list:
    """The rows of `given`, by default all lists of both variants; ruled: with candidates, groups, caps, pairs that are excluded or have faded, and shards."""
    pairs = [
        (f"u{u:02d}", f"i{i:02d}", float(world["s"][u, i]), False, is_left(u, i))
        for u in range(USERS)
        for i in range(ITEMS)
        if world["s"][u, i] > 0
    ]
    kinds = [(f"i{i:02d}", kind_of(i)) for i in range(ITEMS)][::-1]
    catalogue = catalogue_of(
        frame_of(spark, kinds, "item_id string, kind string").repartition(3),
        **frames(
            spark,
            factors=factor_rows("i", world["y"], range(ITEMS - 1)),
            vectors=word_rows(world["t"]),
            popularity=[
                (f"i{i:02d}", int(world["n"][i]), int(world["f"][i]), bool(world["ref"][i]))
                for i in range(ITEMS - 1)
            ],
        ),
        **(catalogue_rules(spark) if ruled else {}),
    )
    excluded = [(f"u{u:02d}", f"i{i:02d}") for u in range(USERS) for i in range(ITEMS) if is_excluded(u, i)]
    columns = "user_id string, item_id string, strength double, is_excluded boolean, fade double"
    preferences = frame_of(spark, pairs, columns).repartition(3)
    given = given or partial(lists, variants=VARIANTS, k=K)
    rows = given(
        frame_of(
            spark, [(f"u{u:02d}", group_of(u)) for u in range(USERS)], "user_id string, group string"
        ).repartition(3),
        preferences=preferences if ruled else preferences.drop("fade"),
        **frames(spark, user_factors=factor_rows("u", world["x"], range(1, USERS))),
        catalogue=catalogue,
        partitions=2,
        **({**frames(spark, exclude=excluded), "caps": {"kind": 2}} if ruled else {}),
    ).collect()
    assert catalogue.shared.outline.n_shards == (1 if not ruled else 3)
    catalogue.shared.release()
    return rows


def catalogue_rules(spark: SparkSession) -> dict:
    forbidden = [("minor", f"i{i:02d}") for i in range(0, ITEMS, 2)] + [("adult", "i03"), ("adult", "i99")]
    candidates = ids([*(f"i{i:02d}" for i in range(ITEMS) if is_candidate(i)), "unknown"])
    rules = frames(spark, candidates=candidates, forbidden=forbidden)
    return {**rules, "labels": ["kind"], "max_item_share": 1e-9}


@pytest.fixture(scope="module")
def ranked(spark: SparkSession, world: dict) -> list:
    return ranked_lists(spark, world, ruled=False)


def test_candidates_groups_masks_caps_and_shards_leave_what_the_rules_leave(
    spark: SparkSession, world: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_spark.ranking.kernel.shards.CUT", 8)  # of 22 candidates
    rows = ranked_lists(spark, world, ruled=True)

    def may(user: int, item: int) -> bool:
        is_forbidden = (group_of(user) == "minor" and item % 2 == 0) or (
            group_of(user) == "adult" and item == 3
        )
        return is_candidate(item) and not is_forbidden and not is_excluded(user, item)

    for variant in VARIANTS:
        expected = oracle(
            world,
            variant.weights,
            repeats=variant.repeats_allowed,
            may=may,
            kind=kind_of,
            at_most=2,
            left=is_left,
        )
        for user, slots in expected.items():
            found = sorted(
                (r for r in rows if r["task"] == variant.task and r["user_id"] == user),
                key=lambda r: r["rank"],
            )
            assert [row["item_id"] for row in found] == [item for item, _ in slots], user
            assert [row["score"] for row in found] == pytest.approx([score for _, score in slots], abs=1e-6)
            for row in found:
                total = sum(variant.weights[name] * value for name, value in row["component_scores"].items())
                assert total == pytest.approx(row["score"], abs=1e-9)


@pytest.mark.parametrize(
    ("task", "weights"), [("repeats_allowed", REPEATS), ("new_items_only", NEW)], ids=["repeats", "new"]
)
def test_lists_are_those_of_the_formula(ranked: list, world: dict, task: str, weights: dict) -> None:
    expected = oracle(world, weights, repeats=task == "repeats_allowed")
    for user, slots in expected.items():
        found = sorted(
            (r for r in ranked if r["task"] == task and r["user_id"] == user), key=lambda r: r["rank"]
        )
        assert [row["item_id"] for row in found] == [item for item, _ in slots], user
        assert [row["rank"] for row in found] == list(range(1, len(slots) + 1))
        assert [row["score"] for row in found] == pytest.approx([score for _, score in slots], abs=1e-6)


def bin_of(world: dict, user: int) -> int:
    return max(at for at in BINS if at <= (world["s"][user] > 0).sum())


def test_users_of_each_bin_are_ranked_by_its_weights(spark: SparkSession, world: dict) -> None:
    variant = Variant.binned("repeats_allowed", "hybrid", BINS)
    rows = ranked_lists(spark, world, ruled=False, given=partial(lists, variants=[variant], k=K))
    per_bin = {at: oracle(world, weights, repeats=True) for at, weights in BINS.items()}
    assert {bin_of(world, user) for user in range(USERS)} == set(BINS)
    for user in range(USERS):
        at = bin_of(world, user)
        found = sorted((r for r in rows if r["user_id"] == f"u{user:02d}"), key=lambda r: r["rank"])
        assert [r["item_id"] for r in found] == [item for item, _ in per_bin[at][f"u{user:02d}"]], user
        assert {r["min_pairs"] for r in found} == {at}
        for row in found:
            assert set(row["component_scores"]) == set(COMPONENTS)
            total = sum(BINS[at][name] * value for name, value in row["component_scores"].items())
            assert total == pytest.approx(row["score"], abs=1e-9)


def test_each_row_of_a_user_repeats_what_is_carried(spark: SparkSession, world: dict, ranked: list) -> None:
    given = partial(lists, variants=VARIANTS, k=K, carried=["group"])
    rows = ranked_lists(spark, world, ruled=False, given=given)
    names = ("task", "user_id", "rank", "item_id", "score")
    expected = {(*(row[name] for name in names), group_of(int(row["user_id"][1:]))) for row in ranked}
    assert {tuple(row[name] for name in (*names, "group")) for row in rows} == expected


def test_candidates_of_a_search_are_what_leads_by_some_component(
    ranked: list, spark: SparkSession, world: dict
) -> None:
    rows = ranked_lists(spark, world, ruled=False, given=partial(candidates, starts=VARIANTS, n=4))
    assert len(rows) == 2 * USERS
    for row in rows:
        user, repeats = int(row["user_id"][1:]), row["task"] == "repeats_allowed"
        assert row["pairs"] == (world["s"][user] > 0).sum()
        start = REPEATS if repeats else NEW
        alone = [{other: float(other == name) for other in COMPONENTS} for name in COMPONENTS]
        leading = {
            int(item[1:])
            for weights in [*alone, start]
            for item, score in oracle(world, weights, repeats=repeats)[row["user_id"]][:4]
            if score > 1e-12
        }
        assert row["items"] == sorted(leading)
        scores = np.array(row["scores"]).reshape(-1, len(COMPONENTS))
        of_list = {
            int(one["item_id"][1:]): one["component_scores"]
            for one in ranked
            if (one["task"], one["user_id"]) == (row["task"], row["user_id"])
        }
        for item, given in zip(row["items"], scores, strict=True):
            for name, value in of_list.get(item, {}).items():
                assert given[COMPONENTS.index(name)] == pytest.approx(value, abs=1e-5)


def test_weighted_component_scores_add_up_to_the_score(ranked: list) -> None:
    for row in ranked:
        weights = REPEATS if row["task"] == "repeats_allowed" else NEW
        assert set(row["component_scores"]) == {name for name in COMPONENTS if weights[name]}
        total = sum(weights[name] * value for name, value in row["component_scores"].items())
        assert total == pytest.approx(row["score"], abs=1e-9)


def test_the_source_of_a_slot_is_the_component_that_gave_it_most(spark: SparkSession) -> None:
    nan = float("nan")
    scores = {
        "als": np.array([3.0, 1.0, 2.0, -1.0, 3.0, nan]),
        "content": np.array([0.2, 0.2, 0.0, 0.0, 0.2, 0.0]),
        "history": np.array([0.0, 0.0, 2.0, 0.0, 0.0, 0.0]),
        "popularity": np.array([1.0, 0.5, 2.0, -0.5, 1.0, nan]),
        "popularity_group": np.array([nan, nan, nan, nan, nan, 0.1]),
    }
    weights = {name: np.ones(6) for name in (*scores, "trial")}
    weights["content"] = np.full(6, 10.0)
    weights["als"] = np.array(
        [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    )  # the fifth is of a user for whom it does not count
    carried_by = sources(scores, weights).to_pylist()
    assert carried_by == ["als", "content", "als", "popularity", "content", "popularity_group"]
    frame = frame_of(spark, [*zip("abcdef", carried_by, strict=True)], "item_id string, source string")
    slots = {row["item_id"]: row for row in explained(frame).collect()}
    assert slots["b"]["reason"] == "Similar to what you buy"
    cold = frame_of(spark, ids("abf"), "item_id string")
    slots = {row["item_id"]: row for row in explained(frame, cold).collect()}
    expected = dict(zip("abcdef", carried_by, strict=True)) | {"a": "cold_item", "f": "cold_item"}
    assert {name: row["source"] for name, row in slots.items()} == expected
    assert slots["a"]["reason"].startswith("New here")


def test_a_quadratic_form_is_that_of_the_formula_and_has_the_same_bits_in_any_batch(monkeypatch):
    rows = sparse.random(40, 300, 0.01, "csr", random_state=1)  # some rows are empty
    words = sparse.random(500, 300, 0.02, "csr", random_state=2)
    gram = (words.T @ words).tocsr()
    forms = blend.quadratic_forms(rows, gram)
    dense, full = rows.toarray(), gram.toarray()
    np.testing.assert_allclose(forms, [row @ full @ row for row in dense], rtol=1e-12)
    np.testing.assert_array_equal(forms[5:9], blend.quadratic_forms(rows[5:9], gram))
    monkeypatch.setattr(blend, "compiled", lambda _name: None)
    np.testing.assert_array_equal(forms, blend.quadratic_forms(rows, gram))
