"""Is one model better than another, or is it the draw of users?

Two models are judged on the same users, so the per-user differences are resampled, not the two means:
what a user finds easy or hard is in both and cancels. Percentile bootstrap after Efron and Tibshirani,
An Introduction to the Bootstrap (1993), chapters 13 and 16; for retrieval metrics Sakai, Evaluating
Evaluation Metrics based on the Bootstrap (SIGIR 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

Differences = npt.NDArray[np.float64]

# Draws held in memory at once: 8 bytes of index and 8 of value each, so 32 MB.
DRAWS_PER_CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it at the chosen level, in the unit of the metric."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True if the difference is of one sign throughout: significant at 1 - level, two-sided."""
        return self.low > 0.0 or self.high < 0.0


def paired_bootstrap(
    differences: Differences, *, samples: int = 10_000, seed: int, level: float = 0.95
) -> Interval:
    """The mean of the per-user differences with its percentile interval over resampled users.

    `differences` has one finite number a user. The result is a function of the arguments only: the seed
    starts a generator of its own, and memory limits do not change the draws. Cost is samples x users
    draws. Percentile intervals are a little narrow for few users: with 150 users of exponentially
    distributed differences an interval of level 0.9 held the truth in 89% of 16,000 repetitions. The interval
    of a single user is a point.

    Raises ValueError for no users, numbers that are not finite, or a wrong `samples` or `level`.
    """
    values = np.asarray(differences, dtype=np.float64)
    _check(values, samples=samples, level=level)
    rng = np.random.default_rng(seed)
    users = values.size
    means = np.empty(samples)
    step = max(1, DRAWS_PER_CHUNK // users)
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        means[start:stop] = values[rng.integers(0, users, size=(stop - start, users))].mean(axis=1)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


@dataclass(frozen=True)
class Paired:
    """One metric of the same users under several models; users by id, values[model] in their order."""

    users: list[str]
    values: dict[str, Differences]

    def difference(self, a: str, b: str) -> Differences:
        """One number a user: the metric under `a` minus that under `b`."""
        return np.asarray(self.values[a] - self.values[b], dtype=np.float64)


def paired_scores(per_user: DataFrame, *, metric: str, models: Sequence[str], task: str) -> Paired:
    """The metric of every user under each of the models.

    `per_user` is what `metrics.per_user_metrics` gives by task and model. Collects one row a user with
    one number per model, in one job.

    Raises ValueError if nothing matches, or if a user has a value for only one of two models: the
    pairs would not be pairs.
    """
    chosen = (F.col("task") == task) & (F.col("metric") == metric) & F.col("model").isin(models)
    wide = (
        per_user.where(chosen)
        .groupBy("user_id")
        .agg(*[_value_of(model).alias(f"m{place}") for place, model in enumerate(models)])
        .orderBy("user_id")
        .toArrow()
    )
    columns = {model: wide.column(f"m{place}") for place, model in enumerate(models)}
    for model, values in columns.items():
        if values.null_count == len(values):
            raise ValueError(f"per_user: no rows of metric {metric!r}, task {task!r}, model {model!r}")
        if values.null_count:
            unpaired = wide.filter(values.is_null()).column("user_id")[0].as_py()
            raise ValueError(
                f"per_user: {values.null_count} of {len(values)} users have {metric!r} of task {task!r} "
                f"for other models than {model!r} only, user {unpaired!r} first; expected a value for each"
            )
    values = {model: np.asarray(column.to_numpy(), np.float64) for model, column in columns.items()}
    return Paired(wide.column("user_id").to_pylist(), values)


def _value_of(model: str) -> Column:
    return F.max(F.when(F.col("model") == model, F.col("value")))


def _check(values: Differences, *, samples: int, level: float) -> None:
    if values.ndim != 1 or not values.size:
        raise ValueError(f"differences: got shape {values.shape}, expected one number a user, at least one")
    if not np.isfinite(values).all():
        raise ValueError("differences: expected finite numbers, got nan or infinity")
    if samples < 1 or not 0.0 < level < 1.0:
        raise ValueError(
            f"samples: got {samples}, expected 1 or more; level: got {level}, expected in (0, 1)"
        )
