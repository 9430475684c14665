"""Which of a user's items a slot is said to go with."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from pyspark.sql import SparkSession
from scipy import sparse

from recsys_spark.config.load import load_settings
from recsys_spark.ranking import goes_with as module
from recsys_spark.ranking.goes_with import Companions, goes_with
from recsys_spark.ranking.kernel.select import Csr, ItemParts
from recsys_spark.ranking.reasons import explained
from recsys_spark.ranking.shared_items import share_items
from tests.conftest import Frame


def test_it_is_the_dearest_of_the_users_items_that_names_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 users against the definition, user by user and slot by slot."""
    monkeypatch.setattr(module, "STRONGEST", 6)
    rng = np.random.default_rng(3)
    users, items, k = 200, 40, 5
    strength = rng.choice([0.0, 0.0, 0.0, 0.5, 1.0, 2.0], (users, items))
    strength[:5] = 0
    had = sparse.csr_matrix(strength)
    had.data[::17] = 0.0  # known, and not liked
    strength = had.toarray()
    similar = np.array([rng.permutation(items)[:4] for _ in range(items)], np.int32)
    similar[::3, 2:] = -1
    index = np.array([rng.permutation(items)[:k] for _ in range(users)], np.int32)
    index[::7, 3:] = -1
    expected = np.full(index.shape, -1)
    for user in range(users):
        asked = [item for item in np.lexsort((np.arange(items), -strength[user])) if strength[user, item] > 0]
        for place, slot in enumerate(index[user]):
            naming = [item for item in asked[:6] if slot >= 0 and slot in similar[item]]
            expected[user, place] = naming[0] if naming else -1
    seen = Csr(had.indptr.astype(np.int64), had.indices.astype(np.int32), had.data)
    np.testing.assert_array_equal(goes_with(seen, index, similar), expected)
    assert 0.1 < (expected >= 0).mean() < 0.9
    nobody = Csr(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0))
    assert (goes_with(nobody, index[:2], similar) == -1).all()


def test_titles_are_readable_and_an_untitled_item_is_not_named(spark) -> None:
    titles = ["FRZN ICE", "", "tea"]
    similar = np.array([[2], [2], [0]], np.int32)
    parts = ItemParts(np.zeros((3, 1), np.float32))
    companions = Companions(share_items(spark, parts, titles, extra={"similar": similar}))
    seen = Csr(np.array([0, 1, 2, 3], np.int64), np.array([0, 1, 2], np.int32), np.ones(3))
    index = np.array([[2, 1], [2, -1], [0, 1]], np.int32)
    assert companions.named(seen, index).to_pylist() == ["Frozen Ice", None, None, "tea", None]
    companions.shared.release()


def test_what_the_user_has_goes_with_nothing_and_nothing_goes_with_its_own_title(spark: SparkSession) -> None:
    """Each item names all others; who has what, liked or not, is in the rows."""
    titles = ["tea", "bread", "milk", "milk", "jam"]
    similar = np.array([[other for other in range(5) if other != item] for item in range(5)], np.int32)
    parts = ItemParts(np.zeros((5, 1), np.float32))
    companions = Companions(share_items(spark, parts, titles, extra={"similar": similar}))
    had = [
        ({0: 2.0, 1: 1.0}, [0, 1, 4]),
        ({2: 1.0}, [3, 0, -1]),
        ({0: 1.0, 4: 0.0}, [4, 3, 2]),
        ({}, [0, 1, 2]),
    ]
    rows, columns, strengths = zip(
        *[(u, item, strength) for u, (own, _) in enumerate(had) for item, strength in own.items()],
        strict=True,
    )
    matrix = sparse.csr_matrix((strengths, (rows, columns)), shape=(4, 5))
    seen = Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
    index = np.array([slots for _, slots in had], np.int32)
    expected = [None, None, "tea"] + [None, "milk"] + [None, "tea", "tea"] + [None] * 3
    assert companions.named(seen, index).to_pylist() == expected
    companions.shared.release()


def test_what_is_new_is_close_to_what_one_buys_only_if_words_or_factors_say_so(frame: Frame) -> None:
    close, new = "New here, and close to what you buy", "New here"
    rows = [
        ("a", "als", {"als": 1.0}, close),
        ("b", "popularity", {"als": -0.5, "content": 0.1, "popularity": 2.0}, close),
        ("c", "popularity", {"als": 0.0, "content": 0.0, "popularity": 2.0}, new),
        ("d", "popularity_group", {"popularity_group": 1.0, "als": float("nan")}, new),
        ("e", "trial", {"als": -1.0, "trial": 1.0}, new),
        ("f", "cold_item", {"als": 0.0, "content": 0.4}, close),
    ]
    ranked = frame(
        "item_id string, source string, component_scores map<string,double>, expected string", rows
    )
    told = explained(ranked, ranked.select("item_id")).collect()
    assert {row["item_id"]: row["reason"] for row in told} == {row[0]: row[3] for row in rows}
    assert {row["source"] for row in told} == {"cold_item"}


def test_repeats_do_not_say_what_they_go_with(frame: Frame) -> None:
    rows = [("a", "als", "tea"), ("b", "trial", "tea"), ("c", "history", "tea"), ("d", "als", None)]
    ranked = frame("item_id string, source string, goes_with string", rows)
    reasons = {row["item_id"]: row["reason"] for row in explained(ranked).collect()}
    assert reasons == {
        "a": "Goes with tea",
        "b": "Goes with tea",
        "c": "You have bought this before",
        "d": "Customers with a similar basket buy this",
    }
    assert "goes_with" not in explained(ranked).columns


def test_a_campaign_says_so_in_mails_unless_it_is_told_otherwise() -> None:
    [mail, *_] = load_settings("demo").campaigns.values()
    named = defaultdict(list)
    for channel in ("email", "push"):
        for given in (None, True, False):
            changed = mail.model_copy(update={"channel": channel, "goes_with": given})
            named[channel].append(changed.tells_goes_with)
    assert named == {"email": [True, True, False], "push": [False, True, False]}
