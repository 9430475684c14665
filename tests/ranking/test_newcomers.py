"""Places that lists keep for items that nobody has had, against plain Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import Catalogue, catalogue_of, lists
from recsys_spark.runtime.rows import frame_of
from tests.frames import factor_rows, frames, ids, word_rows

USERS, ITEMS, RANK, TERMS, K, KEPT = 60, 48, 3, 7, 10, 3
NEW = range(30, ITEMS)
WEIGHTS = {"als": 1.0, "content": 0.3, "history": 0.0, "popularity": 0.0, "trial": 2.0}
PLAIN = Variant("new_items_only", "plain", WEIGHTS)
KEEPING = Variant("new_items_only", "keeping", WEIGHTS, newcomers=0.35)  # of ten places three


def kind_of(item: int) -> str | None:
    return None if item % 10 == 9 else f"kind {item % 4}"


def is_candidate(item: int) -> bool:
    return item % 11 != 5


def is_refused(user: int, item: int) -> bool:
    return (user * 5 + item) % 9 == 0


def is_forbidden(user: int, item: int) -> bool:
    return user % 3 == 1 and item % 4 == 1


@pytest.fixture(scope="module")
def world() -> dict:
    rng = np.random.default_rng(29)
    t = rng.random((ITEMS, TERMS)) * (rng.random((ITEMS, TERMS)) < 0.4)
    strength = rng.integers(1, 9, (USERS, ITEMS)) * (rng.random((USERS, ITEMS)) < 0.1)
    strength[:, NEW.start :] = 0
    strength[:2] = 0  # the first knows no factors either
    return {
        "x": rng.standard_normal((USERS, RANK)).astype(np.float32) * (np.arange(USERS) > 0)[:, None],
        "y": rng.standard_normal((ITEMS, RANK)) * np.where(np.arange(ITEMS) < NEW.start, 1.0, 0.3)[:, None],
        "t": t / np.maximum(np.linalg.norm(t, axis=1), 1e-12)[:, None],
        "s": strength,
        "n": rng.integers(0, 30, ITEMS),
    }


@pytest.fixture(scope="module")
def catalogue(spark: SparkSession, world: dict) -> Iterator[Catalogue]:
    kinds = [(f"i{i:02d}", kind_of(i)) for i in range(ITEMS)]
    counts = world["n"].tolist()
    made = catalogue_of(
        frame_of(spark, kinds, "item_id string, kind string"),
        **frames(
            spark,
            factors=factor_rows("i", world["y"], range(ITEMS)),
            vectors=word_rows(world["t"]),
            popularity=[(f"i{i:02d}", counts[i], counts[i] // 2, True) for i in range(NEW.start)],
            cold=ids(f"i{i:02d}" for i in NEW),
            candidates=ids(f"i{i:02d}" for i in range(ITEMS) if is_candidate(i)),
            forbidden=[("minor", f"i{i:02d}") for i in range(ITEMS) if is_forbidden(1, i)],
        ),
        prior=1.0,
        has_places=True,
        labels=["kind"],
        max_item_share=1e-6,
    )
    assert made.newcomers is not None
    assert made.newcomers.shared.n_items == sum(is_candidate(i) for i in NEW)
    yield made
    made.release()


def ranked(
    spark: SparkSession, world: dict, catalogue: Catalogue, caps: dict[str, int]
) -> dict[tuple[str, int], list]:
    """By model and user the slots in order."""
    users = [(f"u{u:02d}", "minor" if u % 3 == 1 else None) for u in range(USERS)]
    pairs = [
        (f"u{u:02d}", f"i{i:02d}", float(world["s"][u, i]))
        for u, i in zip(*np.nonzero(world["s"]), strict=True)
    ]
    refused = [(f"u{u:02d}", f"i{i:02d}") for u in range(USERS) for i in range(ITEMS) if is_refused(u, i)]
    known = factor_rows("u", world["x"], range(1, USERS))
    rows = lists(
        frame_of(spark, users, "user_id string, group string").repartition(3),
        **frames(spark, preferences=pairs, user_factors=known, exclude=refused),
        catalogue=catalogue,
        variants=[PLAIN, KEEPING],
        k=K,
        partitions=2,
        caps=caps,
    )
    slots: dict[tuple[str, int], list] = {}
    for row in sorted(rows.collect(), key=lambda row: row["rank"]):
        slots.setdefault((row["model"], int(row["user_id"][1:])), []).append(row)
    return slots


def suits(world: dict) -> np.ndarray:
    """How well each newcomer suits each user [U, N]: words and factors, standardised among candidates."""
    new = [i for i in NEW if is_candidate(i)]
    y, t = world["y"].astype(np.float32)[new], world["t"].astype(np.float32)[new]
    profile = world["s"] @ world["t"].astype(np.float32)
    given = np.zeros((USERS, len(new)))
    for scores in (world["x"] @ y.T.astype(np.float64), profile @ t.T.astype(np.float64)):
        deviation = scores.std(axis=1, keepdims=True)
        given += np.where(deviation > 1e-9, scores / np.maximum(deviation, 1e-9), 0.0)
    return given


def expected(plain: list[int], user: int, suit: np.ndarray, at_most: int) -> tuple[list[int], set[int]]:
    """The items that the user's list should hold, and which of them in kept places."""

    def fits(chosen: list[int], item: int) -> bool:
        same = [one for one in chosen if kind_of(one) == kind_of(item)]
        return item not in chosen and (kind_of(item) is None or len(same) < at_most)

    chosen, kept = plain[: K - KEPT], set()
    new = [i for i in NEW if is_candidate(i)]
    for item in sorted(new, key=lambda i: (-suit[new.index(i)], i)) if suit.any() else ():
        may_get = not is_refused(user, item) and not is_forbidden(user, item)
        if may_get and len(chosen) < K and fits(chosen, item):
            chosen, kept = [*chosen, item], kept | {item}
    for item in plain[K - KEPT :]:
        if len(chosen) < K and fits(chosen, item):
            chosen = [*chosen, item]
    return (plain, set()) if len(chosen) < len(plain) else (chosen, kept)


@pytest.mark.parametrize("caps", [{}, {"kind": 3}])
def test_the_last_places_hold_the_newcomers_that_suit_best(
    spark: SparkSession, world: dict, catalogue: Catalogue, caps: dict[str, int]
) -> None:
    slots, suit = ranked(spark, world, catalogue, caps), suits(world)
    replaced = 0
    for user in range(USERS):
        plain, keeping = slots["plain", user], slots["keeping", user]
        before = [int(row["item_id"][1:]) for row in plain]
        wanted, kept = expected(before, user, suit[user], caps.get("kind", K))
        listed = [int(row["item_id"][1:]) for row in keeping]
        assert listed[: K - KEPT] == before[: K - KEPT], user
        assert sorted(listed) == sorted(wanted), user
        assert {int(row["item_id"][1:]) for row in keeping if row["source"] == "cold_item"} == kept, user
        scores = [row["score"] for row in keeping]
        assert scores == sorted(scores, reverse=True), user
        for row in keeping:
            parts = sum(WEIGHTS[name] * value for name, value in row["component_scores"].items())
            assert row["score"] == pytest.approx(parts, abs=1e-9)
        replaced += len(set(listed) - set(before))
    assert replaced > USERS, "most lists would hold few of them"
    assert [row["item_id"] for row in slots["keeping", 0]] == [row["item_id"] for row in slots["plain", 0]]
