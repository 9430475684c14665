"""Truncated SVD and item2vec in the place of ALS, against the definition and the baselines of that name."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pydantic import ValidationError
from pyspark.sql import DataFrame

from recsys_spark.errors import ConfigError, InputError
from recsys_spark.models.als import linear as als_linear
from recsys_spark.models.als.factors import Factors
from recsys_spark.models.als.fit import fit_als
from recsys_spark.models.als.fold_in import fold_in
from recsys_spark.models.als.linear import item_vectors, unit
from tests.conftest import Frame
from tests.models.als.test_fit import PAIRS, Found, als, named

EVENTS = "event_id string, user_id string, item_id string, event_at string, basket_id string"
LINEAR = pytest.mark.parametrize("trainer", ["svd", "item2vec"])
SIDES = [[f"i{side}{n}" for n in range(8)] for side in range(2)]


def bought() -> list[tuple]:
    """Baskets of users who each take from one of two sides only."""
    draw = random.Random(9)
    return [
        (
            f"e{basket}-{item}",
            f"u{basket % 12:02d}",
            item,
            f"2024-01-01 00:00:{basket % 60:02d}",
            f"b{basket}",
        )
        for basket in range(240)
        for item in draw.sample(SIDES[basket % 2], 5)
    ]


def pairs_of(frame: Frame, partitions: int = 3) -> DataFrame:
    events = frame(EVENTS, bought(), partitions)
    return (
        events.groupBy("user_id", "item_id")
        .count()
        .selectExpr("user_id", "item_id", "double(count) strength")
    )


def fitted(frame: Frame, trainer: str, partitions: int = 3) -> Factors:
    settings = als(trainer=trainer, rank=6)
    pairs = pairs_of(frame, partitions)
    return fit_als(pairs, settings, events=lambda: frame(EVENTS, bought(), partitions))


@LINEAR
def test_a_user_is_the_sum_over_what_they_had_and_their_own_side_comes_first(
    frame: Frame, trainer: str
) -> None:
    factors = fitted(frame, trainer)
    items = {row["item_id"]: np.array(row["factors"]) for row in factors.items.collect()}
    users = {row["user_id"]: np.array(row["factors"]) for row in factors.users.collect()}
    assert sorted(items) == sorted(SIDES[0] + SIDES[1])
    assert {vector.shape for vector in (*items.values(), *users.values())} == {(6,)}
    sums = {user: np.zeros(6) for user in users}
    for row in pairs_of(frame).collect():
        sums[row["user_id"]] += np.log1p(row["strength"]) * items[row["item_id"]]
    for user, vector in users.items():
        np.testing.assert_allclose(vector, sums[user], atol=1e-5)
        best = sorted(items, key=lambda item: -(users[user] @ items[item]))[:8]
        assert set(best) == set(SIDES[int(user[1:]) % 2])
    [fitted_once] = factors.history
    assert np.isnan(fitted_once.loss)


def test_svd_is_the_projection_on_the_leading_directions(frame: Frame) -> None:
    draw = np.random.default_rng(6)
    pairs = {(int(u), int(i)): 1.0 + int(u * i) % 4 for u, i in draw.integers(0, (30, 20), (260, 2))}
    found = Found.of(fit_als(frame(PAIRS, named(pairs)), als(trainer="svd", rank=5)))
    taste = np.zeros((30, 20))
    for (u, i), strength in pairs.items():
        taste[u, i] = np.log1p(strength)
    u, s, v = np.linalg.svd(taste, full_matrices=False)
    np.testing.assert_allclose(found.x @ found.y.T, (u[:, :5] * s[:5]) @ v[:5], atol=1e-5)


def test_more_dimensions_than_the_pairs_have_are_zeros(frame: Frame) -> None:
    pairs = {(u, i): 1.0 for u in range(4) for i in range(3) if u != i}
    found = Found.of(fit_als(frame(PAIRS, named(pairs)), als(trainer="svd", rank=9)))
    assert found.y.shape == (3, 9)
    assert not found.y[:, 2:].any()
    assert found.y[:, :2].any(axis=0).all()


def test_item2vec_ranks_by_the_cosine_with_what_the_user_had(frame: Frame) -> None:
    vectors = item_vectors(frame(EVENTS, bought()), size=6, seed=1)
    rows = unit(np.array(vectors.column("factors").to_pylist()))
    expected = dict(zip(vectors.column("item_id").to_pylist(), rows, strict=True))
    factors = fitted(frame, "item2vec")
    for row in factors.items.collect():
        np.testing.assert_allclose(row["factors"], expected[row["item_id"]], atol=1e-6)


@LINEAR
def test_a_folded_in_user_gets_the_factors_that_training_gave(frame: Frame, trainer: str) -> None:
    factors = fitted(frame, trainer)
    trained = {row["user_id"]: row["factors"] for row in factors.users.collect()}
    unknown = frame(PAIRS, [("nobody", "never sold", 1.0), ("u01", "never sold", 5.0)])
    folded = fold_in(pairs_of(frame).unionByName(unknown), factors.items, als(trainer=trainer, rank=6))
    assert {row["user_id"]: row["factors"] for row in folded.collect()} == trained


@LINEAR
def test_the_order_and_partitions_of_the_rows_change_nothing(frame: Frame, trainer: str) -> None:
    one, other = (Found.of(fitted(frame, trainer, partitions)) for partitions in (1, 5))
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.y, other.y)


def test_what_they_cannot_do_is_refused_in_a_sentence(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"warm_start": True}, {"scaling_exponent": 0.5}):
        with pytest.raises(ValidationError, match=r'needs als.trainer = "cg"'):
            als(trainer="svd", **wrong)
    with pytest.raises(ValidationError, match="item2vec fits no ratings"):
        als(trainer="item2vec", feedback="explicit")
    with pytest.raises(InputError, match="no preferences"):
        fit_als(frame(PAIRS, []), als(trainer="svd"))
    with pytest.raises(ConfigError, match="pairs alone have none"):
        fit_als(pairs_of(frame), als(trainer="item2vec"))
    monkeypatch.setattr(als_linear, "MAX_PAIRS", 10)
    with pytest.raises(ConfigError, match=r'96 pairs .* for up to 10. Next: als.trainer = "cg"'):
        fit_als(pairs_of(frame), als(trainer="svd"))
