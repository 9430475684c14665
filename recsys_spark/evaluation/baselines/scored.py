"""From scores to lists: the one way in which every baseline is masked, ordered and cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.models.neighbours import best_columns
from recsys_spark.names import REPEATS_ALLOWED, TASKS

# Users (rows of Known) in, one score an item out, [B, I] float64, larger is better, -inf for never.
Scorer = Callable[[NDArray[np.int64]], NDArray[np.float64]]

CELLS_AT_ONCE = 8_000_000  # scores held at once: 64 MB


def model_lists(
    model: str, score: Scorer, known: Known, *, k: int, tasks: Sequence[str] = TASKS
) -> Iterator[pa.RecordBatch]:
    """The judged users' lists, (task, model, user_id, rank, item_id, score), a block of users at a time.

    Order is score descending, item_id ascending. What a user may not get is never listed; what they had
    only where the task allows repeats. A list is short where fewer items are left.

    model: the name that its rows carry.
    score: gives the scores [B, I] of rows of `known`; larger is better, -inf is never listed.
    known: users, items and pairs as of the cutoff; its `judged` users get a list of its `rankable` items.
    k: places of a list, from 1.
    tasks: some of TASKS; a user gets a list for each.
    """
    not_rankable = np.flatnonzero(~known.rankable)
    step = max(1, CELLS_AT_ONCE // max(len(known.item_ids), 1))
    for start in range(0, known.judged.size, step):
        rows = known.judged[start : start + step]
        scores = np.array(score(rows), dtype=np.float64)  # a copy: what is masked here is masked here only
        scores[:, not_rankable] = -np.inf
        _hide(scores, known.excluded[rows])
        for task in sorted(tasks, key=lambda name: name != REPEATS_ALLOWED):
            if task != REPEATS_ALLOWED:
                _hide(scores, known.seen[rows])
            yield _batch(task, model, known, rows, *best_columns(scores, k))


def _hide(scores: NDArray[np.float64], marks: sparse.csr_matrix) -> None:
    scores[np.repeat(np.arange(marks.shape[0]), np.diff(marks.indptr)), marks.indices] = -np.inf


def _batch(
    task: str,
    model: str,
    known: Known,
    rows: NDArray[np.int64],
    index: NDArray[np.int32],
    score: NDArray[np.float64],
) -> pa.RecordBatch:
    row, place = np.nonzero(index >= 0)
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(task), row.size),
            pa.repeat(pa.scalar(model), row.size),
            known.user_ids.take(pa.array(rows[row])),
            pa.array(place.astype(np.int32) + 1),
            known.item_ids.take(pa.array(index[row, place])),
            pa.array(score[row, place]),
        ],
        names=["task", "model", "user_id", "rank", "item_id", "score"],
    )
