"""The compiled inner loops of the fast ALS trainer (numba). Nothing else may import this module directly:
`models.als.solve` loads it by `runtime.compiled`, which finds it a home where numba can cache.

Sums may be reassociated by the compiler (wide registers), always in the same way for the same machine
code: a row's result depends on that row alone, never on the rows beside it, the chunk or the core. Helpers
are inlined by force: one that is called has two machine codes, its own and the one linked into its cached
caller, and a night in a fresh environment would differ from the next in its last bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

GATHERED = 4096  # a row with at most so many pairs has its factors copied side by side first
SETTLED = 1e-12  # a squared residual that has shrunk so far: float32 has no more to give

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@njit(forceinline=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _add_pairs(
    factors: Floats,
    rows: NDArray[np.int32],
    weight: Floats,
    target: Floats,
    v: Floats,
    out: Floats,
    s: Floats,
) -> None:
    """s[j] = y_j·v and out += Σ_j (target[j] − weight[j]·s[j])·y_j over the rows j of factors."""
    n, dims = rows.size, v.size
    whole = n - n % 4
    for j in range(0, whole, 4):
        a, b, c, d = factors[rows[j]], factors[rows[j + 1]], factors[rows[j + 2]], factors[rows[j + 3]]
        sa, sb, sc, sd = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for k in range(dims):
            sa += a[k] * v[k]
            sb += b[k] * v[k]
            sc += c[k] * v[k]
            sd += d[k] * v[k]
        s[j], s[j + 1], s[j + 2], s[j + 3] = sa, sb, sc, sd
        sa = target[j] - weight[j] * sa
        sb = target[j + 1] - weight[j + 1] * sb
        sc = target[j + 2] - weight[j + 2] * sc
        sd = target[j + 3] - weight[j + 3] * sd
        for k in range(dims):
            out[k] += (sa * a[k] + sb * b[k]) + (sc * c[k] + sd * d[k])
    for j in range(whole, n):
        a = factors[rows[j]]
        sa = np.float32(0)
        for k in range(dims):
            sa += a[k] * v[k]
        s[j] = sa
        sa = target[j] - weight[j] * sa
        for k in range(dims):
            out[k] += sa * a[k]


@njit(forceinline=True, nogil=True)
def _gather(factors: Floats, rows: NDArray[np.int32], out: Floats) -> None:
    dims = factors.shape[1]
    for j in range(rows.size):
        row = factors[rows[j]]
        for k in range(dims):
            out[j, k] = row[k]


@njit(forceinline=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _subtract_dense(gram: Floats, ridge: np.float32, v: Floats, out: Floats) -> None:
    """out −= (G + ridge·I) v; an empty G stands for zero."""
    dims = v.size
    for k in range(dims):
        out[k] -= ridge * v[k]
    n = gram.shape[0]
    whole = n - n % 4
    for k in range(0, whole, 4):
        a, b, c, d = gram[k], gram[k + 1], gram[k + 2], gram[k + 3]
        va, vb, vc, vd = v[k], v[k + 1], v[k + 2], v[k + 3]
        for m in range(dims):
            out[m] -= (va * a[m] + vb * b[m]) + (vc * c[m] + vd * d[m])
    for k in range(whole, n):
        for m in range(dims):
            out[m] -= v[k] * gram[k, m]


@njit(forceinline=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a: Floats, b: Floats) -> float:
    total = np.float64(0)
    for k in range(a.size):
        total += np.float64(a[k]) * np.float64(b[k])
    return total


@njit(forceinline=True, nogil=True)
def _row_weights(
    values: Floats,
    alpha: np.float32,
    implicit: bool,  # noqa: FBT001 - numba takes arguments by position
    weight: Floats,
    target: Floats,
) -> tuple[int, float]:
    """The row's weights and right sides; how many of its pairs are penalised, and Σ c·p² (Σ r²)."""
    counted, constant = 0, 0.0
    for j in range(values.size):
        value = values[j]
        if implicit:
            weight[j] = alpha * abs(value)
            target[j] = np.float32(1) + weight[j] if value > 0 else np.float32(0)
            constant += np.float64(target[j])
            counted += 1 if value > 0 else 0
        else:
            weight[j], target[j] = np.float32(1), value
            constant += np.float64(value) * np.float64(value)
            counted += 1
    return counted, constant


@njit(forceinline=True, nogil=True)
def _solve_row(
    y: Floats,
    rows: NDArray[np.int32],
    weight: Floats,
    target: Floats,
    zero: Floats,
    gram: Floats,
    ridge: np.float32,
    x: Floats,
    work: Floats,
    steps: int,
) -> float:
    """Conjugate gradient from x [d] and into it; the loss without the row's constant. work: [3, d]."""
    r, p, q = work[0], work[1], work[2]
    s = np.empty(rows.size, np.float32)
    r[:] = 0
    q[:] = 0
    _add_pairs(y, rows, weight, target, x, r, s)
    linear, square = 0.0, 0.0
    for j in range(rows.size):
        linear += np.float64(target[j]) * np.float64(s[j])
        square += np.float64(weight[j]) * np.float64(s[j]) * np.float64(s[j])
    _subtract_dense(gram, ridge, x, q)
    loss = square - 2 * linear - _dot(x, q)
    for k in range(x.size):
        r[k] += q[k]
        p[k] = r[k]
    rest = _dot(r, r)
    enough = SETTLED * rest
    for _ in range(steps):
        if rest <= enough:
            break
        q[:] = 0
        _add_pairs(y, rows, weight, zero, p, q, s)
        _subtract_dense(gram, ridge, p, q)
        curvature = -_dot(p, q)
        if not curvature > 0:
            break
        step = np.float32(rest / curvature)
        loss -= np.float64(step) * rest
        for k in range(x.size):
            x[k] += step * p[k]
            r[k] += step * q[k]
        now = _dot(r, r)
        turn = np.float32(now / rest)
        for k in range(x.size):
            p[k] = r[k] + turn * p[k]
        rest = now
    return loss


@njit(cache=True, nogil=True)
def solve_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: Floats,
    others: Floats,
    gram: Floats,
    x: Floats,
    losses: Doubles,
    penalties: Doubles,
    alpha: float,
    implicit: bool,  # noqa: FBT001 - numba takes arguments by position
    regularization: float,
    exponent: float,
    steps: int,
) -> None:
    """Conjugate gradient (Takács, Pilászy, Tikk 2011) for each row, from x and into it.

    A row's pairs stand from indptr[row] to indptr[row + 1]. See `models.als.solve` for w, t, G, λ and e.

    indptr: int64 [rows + 1].
    indices: int32 [pairs], the row of `others` that a pair is with.
    values: float32 [pairs], strengths or ratings.
    others: float32 [n, d], the other side's factors.
    gram: float32 [d, d], G; [0, 0] for none.
    x: float32 [rows, d], the factors to begin from; the new ones stand there afterwards.
    losses: float64 [rows], written: what the row adds to the loss at the new x, its own penalty among it.
    penalties: float64 [rows], written: that penalty alone.
    alpha: what a unit of strength adds to a pair's weight; for implicit feedback only.
    implicit: whether feedback is implicit.
    regularization: λ.
    exponent: e, to which the number of a row's pairs is raised in its penalty.
    steps: at most so many for a row; with 0 nothing moves, and losses and penalties are measured.
    """
    longest = 0
    for row in range(x.shape[0]):
        longest = max(longest, indptr[row + 1] - indptr[row])
    weights, targets = np.empty(longest, np.float32), np.empty(longest, np.float32)
    zeros, work = np.zeros(longest, np.float32), np.empty((3, x.shape[1]), np.float32)
    gathered = np.empty((min(longest, GATHERED), x.shape[1]), np.float32)
    in_order = np.arange(gathered.shape[0]).astype(np.int32)
    for row in range(x.shape[0]):
        first, last = indptr[row], indptr[row + 1]
        n = last - first
        weight, target, zero = weights[:n], targets[:n], zeros[:n]
        counted, constant = _row_weights(values[first:last], np.float32(alpha), implicit, weight, target)
        ridge = regularization * counted**exponent if counted else 0.0
        small = np.float32(ridge)
        if n <= GATHERED:
            _gather(others, indices[first:last], gathered)
            loss = _solve_row(gathered, in_order[:n], weight, target, zero, gram, small, x[row], work, steps)
        else:
            loss = _solve_row(
                others, indices[first:last], weight, target, zero, gram, small, x[row], work, steps
            )
        losses[row] = constant + loss
        penalties[row] = ridge * _dot(x[row], x[row])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def add_gramian(x: Floats, gram: Doubles) -> None:
    """gram += xᵀx in float64, in the order of the rows."""
    dims = x.shape[1]
    row = np.empty(dims)
    for i in range(x.shape[0]):
        for k in range(dims):
            row[k] = np.float64(x[i, k])
        for k in range(dims):
            for m in range(dims):
                gram[k, m] += row[k] * row[m]
