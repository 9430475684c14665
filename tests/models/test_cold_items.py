"""Factors of items that nobody has had, on items whose words tell their factors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys_spark.config.sections import ColdItems
from recsys_spark.models.cold_items import cold_item_factors, fit_text_map, truncated_svd
from tests.conftest import Frame
from tests.settings import with_defaults

ITEMS, WARM, TERMS, RANK = 600, 400, 40, 8
SETTINGS = with_defaults(ColdItems, enabled=True, dims=20, length=1.0, min_items=50, seed=3)


def planted(seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Words [I, V], factors [I, d] that are a map of the words and some noise, and how many users an item has.

    Rare items have short factors that are mostly noise, as those of ALS.
    """
    draw = np.random.default_rng(seed)
    words = np.where(draw.random((ITEMS, TERMS)) < 0.12, draw.random((ITEMS, TERMS)), 0)
    words[:, 0] += words.sum(axis=1) == 0
    words /= np.linalg.norm(words, axis=1)[:, None]
    users = draw.integers(1, 100, ITEMS)
    factors = words @ draw.normal(size=(TERMS, RANK)) + draw.normal(size=(ITEMS, RANK)) / users[:, None]
    return sparse.csr_matrix(words), factors * (users / (users + 20))[:, None], users


def frames(frame: Frame) -> dict:
    words, factors, users = planted()
    names = [f"i{i:03d}" for i in range(ITEMS)]
    return {
        "factors": frame(
            "item_id string, factors array<float>",
            [(names[i], [float(v) for v in factors[i]]) for i in range(WARM)],
        ),
        "vectors": frame(
            "item_id string, terms array<int>, weights array<float>",
            [
                (
                    names[i],
                    [int(term) for term in words[i].indices],
                    [float(weight) for weight in words[i].data],
                )
                for i in range(ITEMS)
            ]
            + [("wordless", [], [])],
        ),
        "preferences": frame(
            "user_id string, item_id string, strength double",
            [(f"u{u:02d}", names[i], 1.0) for i in range(WARM) for u in range(users[i])],
        ),
    }


def test_cold_items_come_back_first_for_those_whose_taste_their_words_tell(frame: Frame) -> None:
    _, factors, _ = planted()
    given = frames(frame)
    rows = cold_item_factors(
        given["factors"], vectors=given["vectors"], preferences=given["preferences"], settings=SETTINGS
    ).collect()
    cold = {row["item_id"]: row["factors"] for row in rows}
    assert set(cold) == {f"i{i:03d}" for i in range(WARM, ITEMS)}, "all that have words and no factor"
    mapped = factors.copy()
    for i in range(WARM, ITEMS):
        mapped[i] = cold[f"i{i:03d}"]
    tastes = np.random.default_rng(9).normal(size=(200, RANK))
    recall = []
    for taste in tastes:
        true = factors[WARM:] @ taste
        right = np.argsort(-true)[:10]
        first = np.argsort(-(mapped @ taste), kind="stable")[:50]
        recall.append(np.isin(right + WARM, first).mean())
    # They compete with 400 warm items: 50 places of 600 drawn by chance would hold 8 % of them.
    assert np.mean(recall) > 0.4


def test_cold_items_are_as_long_as_warm_ones() -> None:
    words, factors, users = planted()
    fitted = fit_text_map(words[:WARM], factors[:WARM], users[:WARM].astype(float), dims=20, seed=3)
    cold = np.linalg.norm(fitted.factors(words[WARM:]), axis=1)
    warm = np.linalg.norm(factors[:WARM], axis=1)
    assert np.median(cold) == pytest.approx(np.median(warm), rel=0.2)


def test_the_basis_is_that_of_the_leading_singular_vectors() -> None:
    words, _, _ = planted()
    basis = truncated_svd(words, dims=5, seed=1)
    _, _, right = np.linalg.svd(words.toarray(), full_matrices=False)
    assert basis.T @ basis == pytest.approx(np.eye(5), abs=1e-9)
    captured = np.linalg.norm(words @ basis) / np.linalg.norm(words.toarray() @ right[:5].T)
    assert captured > 0.97
    assert (truncated_svd(words, dims=5, seed=1) == basis).all()


def test_what_people_had_and_did_not_like_is_not_new(frame: Frame) -> None:
    given = frames(frame)
    disliked = frame(given["preferences"].schema, [("u00", "i450", 0.0), ("u01", "i451", 0.0)])
    found = cold_item_factors(
        given["factors"],
        vectors=given["vectors"],
        preferences=given["preferences"].unionByName(disliked),
        settings=SETTINGS,
    )
    items = {row["item_id"] for row in found.collect()}
    assert items == {f"i{i:03d}" for i in range(WARM, ITEMS)} - {"i450", "i451"}


def test_the_configured_length_multiplies_the_calibrated_one(frame: Frame) -> None:
    given = frames(frame)

    def lengths(length: float) -> np.ndarray:
        rows = cold_item_factors(
            given["factors"],
            vectors=given["vectors"],
            preferences=given["preferences"],
            settings=SETTINGS.model_copy(update={"length": length}),
        ).collect()
        return np.linalg.norm([row["factors"] for row in sorted(rows)], axis=1)

    assert lengths(1.5) == pytest.approx(1.5 * lengths(1.0), rel=1e-5)


def test_too_few_warm_items_teach_nothing(frame: Frame) -> None:
    given = frames(frame)
    few = given["factors"].where("item_id < 'i040'")
    found = cold_item_factors(
        few, vectors=given["vectors"], preferences=given["preferences"], settings=SETTINGS
    )
    assert found.isEmpty()


def test_words_that_every_item_has_teach_nothing_but_the_mean() -> None:
    """The idf of such a word is 0, and so was all that the regression divided by."""
    factors = np.random.default_rng(5).normal(size=(30, 3))
    fitted = fit_text_map(sparse.csr_matrix((30, 4)), factors, np.ones(30), dims=8, seed=1)
    (given,) = fitted.factors(sparse.csr_matrix((1, 4)))
    np.testing.assert_allclose(given / fitted.length, factors.mean(axis=0))
