"""What the kernel is given: what does not fit is refused, by its name and row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys_spark.ranking.kernel.parts import Csr, ItemParts
from recsys_spark.ranking.kernel.select import select
from tests.ranking.kernel.parts import assert_exact, csr, random_parts


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "part", ["items.dense", "items.sparse", "users.dense", "users.sparse", "users.additive"]
)
def test_nan_and_infinity_are_refused_with_the_part_and_the_row(part, bad):
    items, users = random_parts(16)
    side, name = part.split(".")
    values = getattr(items if side == "items" else users, name)
    if isinstance(values, Csr):
        row = int(np.searchsorted(values.indptr, 30, side="right")) - 1
        values.values[30] = bad
    else:
        row = 17
        values[row, 3] = bad
    with pytest.raises(ValueError, match=f"{part} row {row} holds NaN or infinity"):
        select(items, users, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense": np.ones((40, 7))}, r"users.dense: \(40, 7\), expected \[U, 8\]"),
        ({"excluded": csr([[0, 300]] + [[]] * 39)}, r"users.excluded row 0: column 300 is not in \[0, 300\)"),
        ({"excluded": csr([[0]])}, "users.excluded: indptr describes 1 rows, expected 40"),
        (
            {"additive": csr([[4, 4]] + [[]] * 39, [[1, 2]] + [[]] * 39)},
            "users.additive row 0: column 4 is stored",
        ),
        ({"additive": csr([[4]] + [[]] * 39)}, "users.additive: expected one value per index"),
        ({"group": None}, "users.group: items.allowed has groups"),
        ({"group": np.full(40, 3, np.int32)}, r"users.group row 0: 3 is not in \[0, 3\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    items, users = random_parts(18)
    with pytest.raises(ValueError, match=message):
        select(items, replace(users, **change), 3)


def test_item_parts_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"items\.dense: float64"):
        ItemParts(np.ones((3, 2)))
    with pytest.raises(
        ValueError, match=r"items.allowed: bool \(1, 4\), expected bool \[G, 3\] or packed uint8 \[G, 1\]"
    ):
        ItemParts(np.ones((3, 2), np.float32), allowed=np.ones((1, 4), bool))


def test_words_of_another_type_are_refused():
    words = csr([[0]], [[1.0]])
    with pytest.raises(ValueError, match=r"items.sparse: float64, expected float32"):
        ItemParts(np.ones((1, 1), np.float32), words)
    with pytest.raises(ValueError, match="expected widths"):
        ItemParts(np.ones((1, 2), np.float32), blocks=(3, -1))


def test_two_masks_become_one():
    seen, sent = csr([[5, 1], [], [2]]), csr([[1, 7], [0], []])
    both = seen.joined(sent)
    assert [sorted(set(both.indices[a:b])) for a, b in zip(both.indptr, both.indptr[1:], strict=False)] == [
        [1, 5, 7],
        [0],
        [2],
    ]
    items, users = random_parts(29, n_users=3, n_items=9, parts="dense")
    assert_exact(items, replace(users, excluded=both), 9)
