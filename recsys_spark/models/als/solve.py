"""One side of ALS with the other held fixed: the loss of a row, and conjugate gradient on it.

Row u with pairs (i, r) and the other side's factors Y minimises
    Σ_i w_i (y_i·x)² − 2 t_i (y_i·x)  +  xᵀG x  +  λ n^e |x|²  +  constant
where for implicit feedback (Hu, Koren, Volinsky 2008) w = α|r|, t = 1 + w where r > 0 and else 0, G = YᵀY,
n = number of pairs with r > 0; for explicit feedback w = 1, t = r, G = 0, n = number of pairs. With e = 1
this is the loss of Spark MLlib; for other exponents see Rendle, Krichene, Zhang, Koren (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.config.sections import Als
from recsys_spark.runtime.compiled import compiled, frozen

LOOPS = "recsys_spark.models.als.cg_loops"
SETTLED = 1e-12  # as in the compiled loops

Matrix = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """What is minimised: the settings that change the loss, and no others."""

    implicit: bool
    alpha: float
    regularization: float
    exponent: float

    @classmethod
    def of(cls, settings: Als) -> Objective:
        return cls(
            settings.feedback == "implicit",
            settings.alpha,
            settings.regularization,
            settings.scaling_exponent,
        )


@dataclass(frozen=True)
class Rows:
    """Pairs of consecutive rows in CSR form: indptr [rows + 1] int64, indices int32, values float32."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: Matrix


def solve_rows(
    rows: Rows, others: Matrix, gram: Doubles, x: Matrix, objective: Objective, *, steps: int
) -> tuple[Doubles, Doubles]:
    """Conjugate gradient (Takács, Pilászy, Tikk 2011) for each row, from x and into it.

    Returns each row's loss at the new x, its penalty included, and that penalty alone, float64 [rows]. A
    row's result depends on no other row.

    rows: the pairs of the rows to solve.
    others: the other side's factors, float32 [n, d].
    gram: G above, float64 [d, d]; [0, 0] for none.
    x: float32 [rows, d], the factors to begin from; the new ones stand there afterwards.
    objective: which loss.
    steps: at most so many for a row; with 0 the loss is only measured.
    """
    losses, penalties = np.zeros(len(x)), np.zeros(len(x))
    loops = compiled(LOOPS)
    solve = _solve_plain if loops is None else loops.solve_rows
    solve(
        frozen(rows.indptr, np.int64),
        frozen(rows.indices, np.int32),
        frozen(rows.values, np.float32),
        frozen(others, np.float32),
        frozen(gram, np.float32),
        x,
        losses,
        penalties,
        float(objective.alpha),
        bool(objective.implicit),
        float(objective.regularization),
        float(objective.exponent),
        int(steps),
    )
    return losses, penalties


def gramian(x: Matrix) -> Doubles:
    """xᵀx in float64."""
    loops = compiled(LOOPS)
    if loops is None:
        wide = x.astype(np.float64)
        return wide.T @ wide
    gram = np.zeros((x.shape[1], x.shape[1]))
    loops.add_gramian(frozen(x, np.float32), gram)
    return gram


def exact_row(others: Matrix, gram: Doubles, values: NDArray[Any], objective: Objective) -> Doubles:
    """The minimum itself, in closed form and float64: x [d] of one row with these values [n].

    others [n, d] are the factors of the row's own pairs.
    """
    y = others.astype(np.float64)
    weight, target, counted = weights_of(np.asarray(values, np.float64), objective)
    if counted == 0:
        return np.zeros(y.shape[1])
    matrix = y.T @ (weight[:, None] * y)
    if gram.size:
        matrix += gram
    matrix[np.diag_indices(len(matrix))] += _ridge(counted, objective)
    return np.linalg.solve(matrix, y.T @ target)


def weights_of(values: NDArray[Any], objective: Objective) -> tuple[NDArray[Any], NDArray[Any], int]:
    """w and t of the row's pairs, and n (see the module's first lines)."""
    if not objective.implicit:
        return np.ones_like(values), values, values.size
    weight = values.dtype.type(objective.alpha) * np.abs(values)
    positive = values > 0
    return weight, np.where(positive, 1 + weight, values.dtype.type(0)), int(positive.sum())


def _ridge(counted: int, objective: Objective) -> float:
    return objective.regularization * float(counted) ** objective.exponent if counted else 0.0


def _solve_plain(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: Matrix,
    others: Matrix,
    gram: Matrix,
    x: Matrix,
    losses: Doubles,
    penalties: Doubles,
    alpha: float,
    implicit: bool,  # noqa: FBT001 - the compiled loops' own order
    regularization: float,
    exponent: float,
    steps: int,
) -> None:
    """numpy only: the same steps as the compiled loops, row by row, many times slower."""
    objective = Objective(implicit, alpha, regularization, exponent)
    for row in range(len(x)):
        here = slice(indptr[row], indptr[row + 1])
        y, v = others[indices[here]], values[here]
        weight, target, counted = weights_of(v, objective)
        ridge = _ridge(counted, objective)
        losses[row] = _row_plain(y, v, weight, target, gram, np.float32(ridge), x[row], objective, steps)
        penalties[row] = ridge * float(x[row].astype(np.float64) @ x[row])


def _row_plain(
    y: Matrix,
    v: Matrix,
    weight: Matrix,
    target: Matrix,
    gram: Matrix,
    ridge: np.float32,
    x: Matrix,
    objective: Objective,
    steps: int,
) -> float:
    def applied(p: Matrix) -> Matrix:
        dense = ridge * p + (gram @ p if gram.size else np.float32(0))
        return dense + y.T @ (weight * (y @ p))

    def dot(a: Matrix, b: Matrix) -> float:
        return float(a.astype(np.float64) @ b)

    right, at_x = y.T @ target, applied(x)
    constant = float((target if objective.implicit else v * v).astype(np.float64).sum())
    loss = constant - 2 * dot(right, x) + dot(at_x, x)
    residual = right - at_x
    p, rest = residual.copy(), dot(residual, residual)
    enough = SETTLED * rest
    for _ in range(steps):
        if rest <= enough:
            break
        q = applied(p)
        curvature = dot(p, q)
        if not curvature > 0:
            break
        step = np.float32(rest / curvature)
        x += step * p
        residual -= step * q
        loss -= float(step) * rest
        now = dot(residual, residual)
        p = residual + np.float32(now / rest) * p
        rest = now
    return loss
