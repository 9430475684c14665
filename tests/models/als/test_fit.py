"""Both ALS trainers by their behaviour, and the loss they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys_spark.config.sections import Als
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.models.als import blocks as als_blocks
from recsys_spark.models.als import solve as als_solve
from recsys_spark.models.als.blocks import Cut, blocks_of
from recsys_spark.models.als.cg import fit_cg, seeded
from recsys_spark.models.als.factors import Factors, index_pairs
from recsys_spark.models.als.fit import fit_als
from recsys_spark.models.als.fold_in import fold_in
from recsys_spark.models.als.loss import als_loss, loss_of
from recsys_spark.models.als.solve import Objective, Rows, gramian, solve_rows
from recsys_spark.runtime import matrices
from tests.conftest import Frame
from tests.settings import with_defaults

PAIRS = "user_id string, item_id string, strength double"
TRAINERS = ("mllib", "cg")
BOTH = pytest.mark.parametrize("trainer", TRAINERS)


def als(**changed: Any) -> Als:
    usual: dict[str, Any] = {
        "rank": 4,
        "iterations": 4,
        "regularization": 0.02,
        "alpha": 10.0,
        "user_blocks": 2,
        "item_blocks": 2,
        "checkpoint_interval": 3,
        "seed": 1,
        "trainer": "cg",
        "feedback": "implicit",
        "scaling_exponent": 1.0,
        "cg_steps": 3,
        "driver_pairs": 1_000_000,
        "tolerance": 0.0,
        "warm_start": False,
        "retrain_days": 1,
        "loss_every": 0,
    }
    return with_defaults(Als, **{**usual, **changed})


@dataclass
class Found:
    """Factors as matrices in the order of the sorted ids."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, factors: Factors) -> Found:
        users, items = sorted(factors.users.collect()), sorted(factors.items.collect())
        assert [row[0] for row in users] == list(range(len(users)))
        return cls(np.array([row["factors"] for row in users]), np.array([row["factors"] for row in items]))


def named(pairs: dict[tuple[int, int], float]) -> list[tuple[str, str, float]]:
    return [(f"u{u:03d}", f"i{i:03d}", r) for (u, i), r in sorted(pairs.items())]


def dense_loss(x, y, pairs: dict[tuple[int, int], float], objective: Objective) -> float:
    """The definition itself, cell by cell."""
    total = 0.0
    n_users, n_items = np.zeros(len(x)), np.zeros(len(y))
    for u in range(len(x)):
        for i in range(len(y)):
            r, score = pairs.get((u, i)), float(x[u] @ y[i])
            if r is not None and (r > 0 or not objective.implicit):
                n_users[u] += 1
                n_items[i] += 1
            if objective.implicit:
                c = 1 + objective.alpha * abs(r or 0.0)
                total += c * (float((r or 0.0) > 0) - score) ** 2
            elif r is not None:
                total += (r - score) ** 2
    for n, side in ((n_users, x), (n_items, y)):
        for row, count in zip(side, n, strict=True):
            total += (
                objective.regularization * (count**objective.exponent if count else 0.0) * float(row @ row)
            )
    return total


def csr(pairs: dict[tuple[int, int], float], n_rows: int) -> Rows:
    keys = sorted(pairs)
    counts = np.bincount([u for u, _ in keys], minlength=n_rows)
    return Rows(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array([i for _, i in keys], np.int32),
        np.array([pairs[key] for key in keys], np.float32),
    )


PROBLEMS = st.tuples(
    st.dictionaries(
        st.tuples(st.integers(0, 5), st.integers(0, 6)),
        st.sampled_from([0.5, 1.0, 3.0, -2.0]),
        min_size=1,
    ),
    st.builds(Objective, st.booleans(), st.just(2.0), st.just(0.1), st.sampled_from([0.0, 0.5, 1.0])),
    st.integers(0, 9999),
)


@settings(deadline=None, max_examples=60)
@given(PROBLEMS)
def test_the_loss_is_that_of_its_definition_and_the_trainers_own_figure_agrees(problem):
    pairs, objective, seed = problem
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(n, 5)).astype(np.float32) for n in (6, 7))
    rows, columns = (np.array([key[n] for key in pairs]) for n in (0, 1))
    expected = dense_loss(x.astype(float), y.astype(float), pairs, objective)
    assert als_loss(x, y, rows, columns, np.array(list(pairs.values())), objective) == pytest.approx(expected)
    gram = gramian(y) if objective.implicit else np.zeros((0, 0))
    moved = x.copy()
    for steps in (0, 2):
        losses, _ = solve_rows(csr(pairs, 6), y, gram, moved, objective, steps=steps)
        items_only = dense_loss(np.zeros_like(x, float), y.astype(float), pairs, objective)
        items_only -= dense_loss(np.zeros_like(x, float), np.zeros_like(y, float), pairs, objective)
        whole = dense_loss(moved.astype(float), y.astype(float), pairs, objective)
        assert losses.sum() + items_only == pytest.approx(whole, rel=1e-4, abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(PROBLEMS)
def test_the_compiled_loops_and_numpy_take_the_same_steps(problem):
    pairs, objective, seed = problem
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(n, 5)).astype(np.float32) for n in (6, 7))
    gram = gramian(y) if objective.implicit else np.zeros((0, 0))
    answers = []
    compiled = als_solve.compiled
    for loops in (compiled, lambda _: None):
        als_solve.compiled = loops
        try:
            moved = x.copy()
            losses, penalties = solve_rows(csr(pairs, 6), y, gram, moved, objective, steps=2)
            answers.append((moved, losses, penalties, gramian(y)))
        finally:
            als_solve.compiled = compiled
    for ours, plain in zip(*answers, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=2e-3, atol=2e-3)


def test_a_row_of_many_pairs_is_solved_like_one_of_few():
    """Beyond the size that is copied side by side the loops read the factors in place."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=(9_000, 8)).astype(np.float32)
    pairs = {(0, i): 1.0 for i in range(9_000)} | {(1, i): 2.0 for i in range(3)}
    objective = Objective(implicit=True, alpha=2.0, regularization=0.1, exponent=1.0)
    x = np.zeros((2, 8), np.float32)
    solve_rows(csr(pairs, 2), y, gramian(y), x, objective, steps=40)
    for row, (values, own) in enumerate(((np.ones(9_000), y), (np.full(3, 2.0), y[:3]))):
        exact = als_solve.exact_row(own, gramian(y), values, objective)
        np.testing.assert_allclose(x[row], exact, atol=1e-4)


def test_starts_are_unit_vectors_that_depend_on_the_row_and_the_seed_alone():
    whole = seeded(np.arange(5_000), 16, 7)
    np.testing.assert_array_equal(seeded(np.array([4_321, 17]), 16, 7), whole[[4_321, 17]])
    assert np.abs(np.linalg.norm(whole, axis=1) - 1).max() < 1e-6
    assert np.abs(whole.mean(axis=0)).max() < 0.02
    assert np.abs(whole.T @ whole / 5_000 - np.eye(16) / 16).max() < 0.01
    assert not np.array_equal(seeded(np.arange(9), 16, 8), whole[:9])


@BOTH
def test_withheld_items_of_a_checkerboard_come_back_first(frame: Frame, trainer: str) -> None:
    """Even users like even items, odd users odd ones; one liked item of each user is withheld."""
    users, items = 24, 16
    liked = {(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2}
    withheld = {u: (u * 6 + u % 2) % items for u in range(users)}
    kept = {(u, i): 1.0 for u, i in liked if withheld[u] != i}
    factors = fit_als(frame(PAIRS, named(kept)), als(trainer=trainer))
    found = Found.of(factors)
    for u in range(users):
        unseen = [i for i in range(items) if (u, i) not in kept]
        assert max(unseen, key=lambda i: found.x[u] @ found.y[i]) == withheld[u]
    objective = Objective.of(als())
    last = factors.history[-1]
    assert last.iteration == 4
    assert last.loss == pytest.approx(dense_loss(found.x, found.y, kept, objective), rel=1e-4)


def test_mllibs_loss_after_earlier_iterations_is_that_of_shorter_fits(frame: Frame) -> None:
    pairs = frame(PAIRS, [(f"u{u}", f"i{i}", 1.0) for u in range(8) for i in range(6) if (u * i) % 3 != 1])
    usual = {"trainer": "mllib", "rank": 2}
    whole = fit_als(pairs, als(**usual, iterations=2, loss_every=1)).history
    [short] = fit_als(pairs, als(**usual, iterations=1)).history
    assert [one.iteration for one in whole] == [1, 2]
    assert whole[0].loss == short.loss > whole[1].loss


@BOTH
def test_a_planted_matrix_of_ratings_is_found_again(frame: Frame, trainer: str) -> None:
    rng = np.random.default_rng(5)
    truth = 3 + rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    seen = rng.random(truth.shape) < 0.7
    pairs = {(int(u), int(i)): float(truth[u, i]) for u, i in zip(*np.nonzero(seen), strict=True)}
    settings_ = als(
        trainer=trainer, feedback="explicit", rank=3, iterations=6, regularization=0.002, cg_steps=8
    )
    found = Found.of(fit_als(frame(PAIRS, named(pairs)), settings_))
    error = (found.x @ found.y.T - truth)[~seen]
    assert np.sqrt((error**2).mean()) < 0.25
    assert truth.std() > 1


@BOTH
def test_a_folded_in_user_gets_the_factors_that_training_gave(frame: Frame, trainer: str) -> None:
    rng = np.random.default_rng(2)
    pairs = {(int(u), int(i)): 1.0 + int(u * i) % 4 for u, i in rng.integers(0, (30, 20), (260, 2))}
    settings_ = als(trainer=trainer, alpha=2.0, iterations=2, cg_steps=60)
    rows = frame(PAIRS, named(pairs))
    factors = fit_als(rows, settings_)
    trained = {row["user_id"]: np.array(row["factors"]) for row in factors.users.collect()}
    unknown = frame(PAIRS, [("nobody", "never sold", 1.0), ("u001", "never sold", 5.0)])
    folded = fold_in(rows.unionByName(unknown), factors.items, settings_).collect()
    assert sorted(row["user_id"] for row in folded) == sorted(trained)
    for row in folded:
        np.testing.assert_allclose(row["factors"], trained[row["user_id"]], atol=1e-3)


@BOTH
def test_the_same_preferences_give_the_same_factors_in_any_order(frame: Frame, trainer: str) -> None:
    pairs = [(f"u{u}", f"i{i}", 1.0 + u % 3) for u in range(12) for i in range(9) if (u + i) % 3]
    found = [
        Found.of(fit_als(frame(PAIRS, rows, partitions), als(trainer=trainer, iterations=2)))
        for rows, partitions in ((pairs, 1), (pairs[::-1], 5))
    ]
    np.testing.assert_array_equal(found[0].x, found[1].x)
    np.testing.assert_array_equal(found[0].y, found[1].y)


def test_the_driver_and_the_executors_give_the_same_factors_and_losses_and_so_do_parts(
    frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(9)
    pairs = {(int(u), int(i)): 1.0 + int(u) % 3 for u, i in rng.integers(0, (50, 30), (600, 2))}
    rows = frame(PAIRS, named(pairs))
    fits, folded = [], []
    for limit, part_bytes in ((0, 1 << 30), (10**6, 1 << 30), (0, 4 * 4 * 7), (10**6, 4 * 4 * 7)):
        monkeypatch.setattr(matrices, "PART_BYTES", part_bytes)  # 7 rows of rank 4
        fits.append(fit_als(rows, als(iterations=2, driver_pairs=limit)))
        newcomer = frame(PAIRS, [("new", "i003", 2.0), ("new", "i029", 1.0), ("new", "i011", 1.0)])
        if limit == 0:
            folded.append([row["factors"] for row in fold_in(newcomer, fits[-1].items, als()).collect()])
    found = [Found.of(factors) for factors in fits]
    for other, fit in zip(found[1:], fits[1:], strict=True):
        np.testing.assert_array_equal(found[0].x, other.x)
        np.testing.assert_array_equal(found[0].y, other.y)
        assert [one.loss for one in fits[0].history] == [one.loss for one in fit.history]
    assert folded[0] == folded[1]


def test_the_driver_and_the_executors_measure_the_same_loss(frame: Frame) -> None:
    rng = np.random.default_rng(3)
    pairs = {(int(u), int(i)): 1.0 + int(u) % 3 for u, i in rng.integers(0, (30, 20), (300, 2))}
    indexed = index_pairs(frame(PAIRS, named(pairs)))
    factors = fit_cg(indexed, als(iterations=1))
    losses = [loss_of(factors, indexed, Objective.of(als()), driver_pairs=limit) for limit in (0, 10**6)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[1] == pytest.approx(factors.history[-1].loss, rel=1e-5)


def test_a_warm_start_begins_where_the_night_before_ended_and_stops_when_settled(frame: Frame) -> None:
    rng = np.random.default_rng(4)
    pairs = {(int(u), int(i)): 1.0 for u, i in rng.integers(0, (40, 25), (400, 2))}
    cold = fit_als(frame(PAIRS, named(pairs)), als(alpha=2.0, iterations=10))
    today = {**pairs, (40, 3): 1.0, (40, 4): 1.0}  # one user more
    settled = als(alpha=2.0, iterations=10, tolerance=0.02)
    warm = fit_als(frame(PAIRS, named(today)), settled, start=cold)
    assert warm.history[0].loss < cold.history[2].loss
    assert len(warm.history) == 2
    assert Found.of(warm).x.shape == (41, 4)
    with pytest.raises(ConfigError, match=r"start from have rank 4, als.rank is 5"):
        fit_als(frame(PAIRS, named(today)), als(rank=5), start=cold)


def test_blocks_hold_every_pair_once_in_order_whatever_the_partitions(
    frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(als_blocks, "PIECE_PAIRS", 7)
    rng = np.random.default_rng(6)
    cells = rng.choice(50 * 40, 600, replace=False)
    pairs = sorted((int(c // 40), int(c % 40), float(c)) for c in cells)
    users = len({u for u, _, _ in pairs})
    assert users == 50
    rows = frame("user_index int, item_index int, strength float", pairs, 7)
    by_user, by_item = Cut("user_index", "item_index", 50, 3), Cut("item_index", "user_index", 40, 5)
    blocks, of_items = blocks_of(rows, [by_user, by_item], value="strength")
    try:

        def listed(chunk, n_blocks=3):
            per_row = np.repeat(np.arange(chunk.n_rows), np.diff(chunk.rows.indptr))
            row = (chunk.first + per_row) * n_blocks + chunk.block
            return list(
                zip(row.tolist(), chunk.rows.indices.tolist(), chunk.rows.values.tolist(), strict=True)
            )

        found = [pair for results in blocks.run(listed, bytes_per_row=1) for part in results for pair in part]
        assert sorted(found) == pairs
        by_row = [[pair for pair in found if pair[0] == row] for row in range(50)]
        assert all(part == sorted(part) for part in by_row)
        turned = of_items.run(partial(listed, n_blocks=5), bytes_per_row=1)
        turned = [(user, item, value) for results in turned for part in results for item, user, value in part]
        assert sorted(turned) == pairs
        with pytest.raises(ConfigError, match=r"Next: raise als\.user_blocks"):
            next(blocks.run(listed, bytes_per_row=10**9))
        # Results that would not fit into one job come in several.
        assert len(list(blocks.run(listed, bytes_per_row=24_000_000))) == 2
    finally:
        blocks.release()


def test_nothing_to_learn_from_and_settings_that_mllib_lacks_are_told(frame: Frame) -> None:
    with pytest.raises(InputError, match="no preferences to learn from"):
        fit_als(frame(PAIRS, []), als())
    with pytest.raises(ValidationError, match=r'scaling_exponent = 0.5 needs als.trainer = "cg"'):
        als(trainer="mllib", scaling_exponent=0.5)
    with pytest.raises(ValidationError, match=r"warm_start = true needs"):
        als(trainer="mllib", warm_start=True)
