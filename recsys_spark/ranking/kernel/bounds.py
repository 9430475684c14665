"""How far a float32 score may be off, and how large a score can be at all.

float32 reaches from 2^-149 to 2^128, a user's numbers and the parts of a blend much further. So each user's
product is brought near 1 by a power of two, and each part of the items whose largest norm is out of the way
by one of its own: what then overflows or underflows float32 is bounded by `absolute`. A part that is all
zeros in the items counts as zero in the users, however large their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.parts import Csr, Floats
from recsys_spark.ranking.kernel.shards import Outline, PlacedUsers

LARGEST_SCORE = 1e300  # beyond it a sum of finite float64 may be infinite
TINY = 2.0**-1000  # below it norms are rounded up: far above where float64 loses digits
ROUNDING = 1 + 1e-6  # for the float64 roundings in the norms, in a bound and in the score itself


class ScoreOverflowError(ValueError):
    """A user whose scores might overflow float64; row: which of the call's users."""

    def __init__(self, part: str, row: int) -> None:
        super().__init__(f"users.{part} row {row}: its scores overflow float64")
        self.row = row


@dataclass(frozen=True)
class Bounds:
    """Powers of two that bring the float32 product near 1 from any magnitude, and what it may be off by.

    norms [U, B + 1]: of the users' blocks and sparse rows, 0 where the items have only zeros there. unit [U]:
    score = float32 score · unit = float32 score · 2^exponent. dense [D], sparse: exponents by which the
    items' values are scaled, and the users' the other way (0 unless a part is extreme). idle [D]: where the
    items have only zeros. n_terms: of the longest inner product.
    """

    norms: Floats
    unit: Floats
    exponent: NDArray[np.int64]
    dense: NDArray[np.int64]
    sparse: int
    idle: NDArray[np.bool_]
    n_terms: int

    @classmethod
    def of(cls, outline: Outline, users: PlacedUsers) -> Bounds:
        """ScoreOverflowError, a ValueError: a user whose scores could overflow float64."""
        largest = outline.largest[0]
        norms = np.zeros((users.n_users, largest.size))
        ends = np.cumsum(outline.blocks)
        for b, (end, width) in enumerate(zip(ends, outline.blocks, strict=True)):
            norms[:, b] = _row_norms(users.dense[:, end - width : end])
        if outline.is_sparse and users.sparse is not None:
            norms[:, -1] = _csr_row_norms(users.sparse, outline.n_terms)
        norms[:, largest == 0] = 0.0
        _refuse_overflow(users, norms, largest)
        exponent = _exponents(norms, largest)
        exponent = np.where(exponent < -(1 << 20), 0, np.clip(exponent, -1000, 1000))
        return cls(
            norms=norms,
            unit=np.ldexp(1.0, exponent),
            exponent=exponent,
            dense=np.repeat(_item_scales(largest[:-1]), outline.blocks),
            sparse=int(_item_scales(largest)[-1]),
            idle=np.repeat(largest[:-1] == 0, outline.blocks),
            n_terms=outline.n_dims + outline.most_terms + 2,
        )

    def rows(self, rows: slice) -> Bounds:
        return Bounds(
            self.norms[rows],
            self.unit[rows],
            self.exponent[rows],
            self.dense,
            self.sparse,
            self.idle,
            self.n_terms,
        )

    @property
    def is_scaled(self) -> bool:
        """Whether the items' dense values need a scaled copy."""
        return bool(np.any(self.dense))

    @property
    def has_words(self) -> bool:
        """Whether the sparse part gives anything to any of the users."""
        return bool(np.any(self.norms[:, -1]))

    @cached_property
    def is_zero(self) -> NDArray[np.bool_]:
        """Users whose every score, additive values apart, is 0."""
        return ~np.any(self.norms > 0, axis=1)

    @cached_property
    def absolute(self) -> Floats:
        """For underflow, of the scaled float32 product and of the float64 score."""
        return self.n_terms * (2.0**-90 * self.unit + 2.0**-1072)

    def margin(self, item_norms: Floats) -> Floats:
        """How far a float32 score may be from the exact one, for items of at most these norms [B + 1].

        The relative part is Higham's bound. A user of zero norm has no error at all.
        """
        gamma = self.n_terms * 2.0**-24 / (1 - self.n_terms * 2.0**-24)
        return np.where(self.is_zero, 0.0, gamma * ROUNDING * (self.norms @ item_norms) + self.absolute)

    def ceiling(self, item_norms: Floats) -> Floats:
        """No exact score, additive values apart, exceeds this for items of at most these norms [B + 1]."""
        return ROUNDING * (self.norms @ item_norms) + self.absolute


def _row_norms(dense: Floats) -> Floats:
    """Norms without overflow or underflow of the squares, denormal ones never too small."""
    largest = np.abs(dense).max(axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    with np.errstate(over="ignore"):  # refused later, if the items are not all zeros there
        return _rounded_up(largest * np.sqrt(np.square(dense / safe[:, None]).sum(axis=1)))


def _csr_row_norms(matrix: Csr, n_columns: int) -> Floats:
    """The same of sparse rows; what is stored from n_columns on meets nothing and does not count."""
    known = matrix.indices < n_columns
    row, values = matrix.row[known], np.abs(np.asarray(matrix.values, np.float64)[known])
    largest = np.zeros(matrix.n_rows)
    np.maximum.at(largest, row, values)
    safe = np.where(largest > 0, largest, 1.0)
    squares = np.bincount(row, np.square(values / safe[row]), minlength=matrix.n_rows)
    with np.errstate(over="ignore"):
        return _rounded_up(largest * np.sqrt(squares))


def _rounded_up(norms: Floats) -> Floats:
    """One step more where a step is much: near 2^-1074 it is as large as the norm, and ROUNDING no help."""
    return np.where((norms > 0) & (norms < TINY), np.nextafter(norms, np.inf), norms)


def _refuse_overflow(users: PlacedUsers, norms: Floats, largest: Floats) -> None:
    with np.errstate(over="ignore"):
        bound = (norms * largest).sum(axis=1)
    if np.any(~(bound < LARGEST_SCORE)):
        raise ScoreOverflowError("dense", int(np.argmin(bound < LARGEST_SCORE)))
    if users.additive is not None and users.additive.values is not None:
        large = np.abs(users.additive.values) >= LARGEST_SCORE
        if np.any(large):
            raise ScoreOverflowError("additive", int(users.additive.row[int(np.argmax(large))]))


def _exponents(norms: Floats, largest: Floats) -> NDArray[np.int64]:
    """e with every block's norm · largest < 2^e, far below any other where all products are 0."""
    e = np.frexp(norms)[1].astype(np.int64) + np.frexp(largest)[1]
    return np.where((norms > 0) & (largest > 0), e, -(1 << 30)).max(axis=1, initial=-(1 << 30))


def _item_scales(largest: Floats) -> NDArray[np.int64]:
    """0 in the usual range: then the items need no scaled copy."""
    e = np.frexp(largest)[1].astype(np.int64)
    return np.where(np.abs(e) <= 32, 0, -e)
