"""The fast ALS trainer: MLlib's loss by conjugate gradient, block by block over Spark's partitions.

An iteration solves the items from the users, then the users from the items, each row by a few steps of
conjugate gradient from where it was (Takács, Pilászy, Tikk 2011): pairs · d per step, where a direct solve
takes pairs · d² + rows · d³ / 3. The other side's factors reach the executors as memory-mapped files; rows'
results come back, and their order and sums depend on the block counts only, never on cores or workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Als
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.models.als.blocks import Blocks, Chunk, Cut, blocks_held, blocks_of
from recsys_spark.models.als.factors import Factors, IndexedPairs, Iteration
from recsys_spark.models.als.solve import Matrix, Objective, Rows, gramian, solve_rows
from recsys_spark.runtime.batches import lists_of
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.matrices import MatrixSeries, SharedMatrix
from recsys_spark.runtime.workers import warm_worker

AT_ONCE = 1 << 16  # rows of a start that are drawn, and summed, at a time ...
SEEDED_AT_ONCE = 1024  # ... so many by one core: a piece stays in its cache
NEW = 0.01  # norm of a new row's start beside that of the known ones: it must not disturb them


@dataclass
class Side:
    """Users or items: their pairs, their factors on the executors, and XᵀX of those factors."""

    blocks: Blocks
    series: MatrixSeries
    gram: NDArray[np.float64]


def fit_cg(indexed: IndexedPairs, settings: Als, *, start: Factors | None = None) -> Factors:
    """Factors by at most `iterations` iterations, fewer when the loss has settled (`tolerance`).

    start: factors by id to begin from, as of an earlier night; other ids begin near zero. Without it, users
    begin as unit vectors drawn for (index, seed), items at zero.
    """
    began = time.perf_counter()
    users, items = _sides(indexed, settings)
    try:
        _begin(users, items, indexed, settings, start)
        history = _iterate(users, items, settings, began)
        return Factors(
            _named(users.series, indexed.users, "user"),
            _named(items.series, indexed.items, "item"),
            history,
        )
    finally:
        for side in (users, items):
            side.blocks.release()
            side.series.close()


def _sides(indexed: IndexedPairs, settings: Als) -> tuple[Side, Side]:
    """Users and items. Where the pairs are so few, the driver holds them and solves all rows itself."""
    spark, is_held = indexed.pairs.sparkSession, indexed.n_pairs <= settings.driver_pairs
    cuts = (
        Cut("user_index", "item_index", indexed.n_users, settings.user_blocks),
        Cut("item_index", "user_index", indexed.n_items, settings.item_blocks),
    )
    if is_held:
        held = indexed.pairs.toArrow()
        blocks = [blocks_held(spark, held, cut, value="strength") for cut in cuts]
    else:
        blocks = blocks_of(indexed.pairs, cuts, value="strength")
    users, items = (
        Side(
            own,
            MatrixSeries(spark, f"als-{kind}-factors", own.n_rows, settings.rank, is_held),
            np.zeros((settings.rank, settings.rank)),
        )
        for own, kind in zip(blocks, ("user", "item"), strict=True)
    )
    return users, items


def _iterate(users: Side, items: Side, settings: Als, began: float) -> tuple[Iteration, ...]:
    history: list[Iteration] = []
    for iteration in range(1, settings.iterations + 1):
        _, penalty = _half_step(items, users, settings)
        loss = _half_step(users, items, settings)[0] + penalty
        if not np.isfinite(loss):
            raise InputError(
                f"als: the loss is {loss} after iteration {iteration}. Expected finite strengths and a "
                "solvable problem. Next: lower als.alpha or raise als.regularization."
            )
        history.append(Iteration(iteration, loss, time.perf_counter() - began))
        if len(history) > 1 and abs(history[-2].loss - loss) <= settings.tolerance * history[-2].loss:
            break
    return tuple(history)


def _half_step(side: Side, other: Side, settings: Als) -> tuple[float, float]:
    """Solve all rows of one side; its loss (own penalty included) and that penalty.

    The loss is that of all pairs and of this side's penalty: a by-product of conjugate gradient.
    """
    objective = Objective.of(settings)
    fixed, own = other.series.current, side.series.current
    if fixed is None:
        raise RuntimeError("the fixed side has no factors yet")
    gram = other.gram if objective.implicit else np.zeros((0, 0))
    work = _solving(fixed, own, gram, objective, side.blocks.n_blocks, settings)
    draft, at = side.series.begin(), 0
    side.gram, loss, penalty = np.zeros_like(side.gram), 0.0, 0.0
    per_row = 4 * settings.rank + 64
    for results in side.blocks.run(work, bytes_per_row=per_row):
        for block, first, factors, gram_part, loss_part, penalty_part in results:
            rows = np.frombuffer(factors, np.float32).reshape(-1, settings.rank)
            draft.put(_indexes(block, first, len(rows), side.blocks.n_blocks), rows)
            side.gram += np.frombuffer(gram_part).reshape(side.gram.shape)
            loss, penalty, at = loss + loss_part, penalty + penalty_part, at + len(rows)
    if at != side.blocks.n_rows:
        raise InputError(f"als: {at:,} rows came back of {side.blocks.n_rows:,}: every row needs a pair")
    side.series.share(draft)
    return loss, penalty


def _indexes(block: int, first: int, n_rows: int, n_blocks: int) -> NDArray[np.int64]:
    """The indexes of consecutive rows of a block."""
    begin = block + first * n_blocks
    return np.arange(begin, begin + n_rows * n_blocks, n_blocks)


def _solving(
    fixed: SharedMatrix,
    own: SharedMatrix | None,
    gram: NDArray[np.float64],
    objective: Objective,
    n_blocks: int,
    settings: Als,
) -> Callable[[Chunk], Any]:
    rank, steps = settings.rank, settings.cg_steps

    def solve(chunk: Chunk) -> tuple[int, int, bytes, bytes, float, float]:
        x = np.zeros((chunk.n_rows, rank), np.float32)
        if own is not None:
            x[:] = own.read(_indexes(chunk.block, chunk.first, chunk.n_rows, n_blocks))
        others, indices = fixed.needed(chunk.rows.indices)
        rows = Rows(chunk.rows.indptr, indices, chunk.rows.values)
        losses, penalties = solve_rows(rows, others, gram, x, objective, steps=steps)
        return (
            chunk.block,
            chunk.first,
            x.tobytes(),
            gramian(x).tobytes(),
            float(losses.sum()),
            float(penalties.sum()),
        )

    return solve


def _begin(users: Side, items: Side, indexed: IndexedPairs, settings: Als, start: Factors | None) -> None:
    """Write the start of the users, and of the items where there is an earlier night."""
    for salt, side, ids, kind in ((0, users, indexed.users, "user"), (1, items, indexed.items, "item")):
        known = None if start is None else _known(start, ids, kind, settings.rank)
        if known is None and kind == "item":
            continue
        draft, length, total = side.series.begin(), np.float32(1), side.series.rows
        if known is not None and known[0].size:
            length = np.float32(NEW * np.mean(np.linalg.norm(known[1], axis=1)))
        for first in range(0, total, AT_ONCE):
            rows = np.arange(first, min(first + AT_ONCE, total))
            draft.put(rows, _drawn(rows, settings.rank, settings.seed + salt) * length)
        if known is not None:
            draft.put(*known)
        side.gram = np.zeros_like(side.gram)
        for some in draft.blocks(AT_ONCE):
            side.gram += gramian(some)
        side.series.share(draft)


def _drawn(rows: NDArray[np.int64], rank: int, seed: int) -> Matrix:
    """`seeded`, by all cores, in pieces that stay in a core's cache."""
    pieces = np.array_split(rows, max(1, rows.size // SEEDED_AT_ONCE))
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as threads:
        return np.concatenate(list(threads.map(lambda piece: seeded(piece, rank, seed), pieces)))


def seeded(rows: NDArray[np.int64], rank: int, seed: int) -> Matrix:
    """Unit vectors [rows, rank], each drawn from a hash of (row, seed) alone."""
    with np.errstate(over="ignore"):
        count = rows.astype(np.uint64)[:, None] * np.uint64(2 * rank) + np.arange(2 * rank, dtype=np.uint64)
        bits = _mixed(count + _mixed(np.array([seed & (2**64 - 1)], np.uint64)))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    # Box and Muller: two uniform numbers make one normal number, and a direction of many has no preference.
    normal = np.sqrt(-2 * np.log(uniform[:, :rank])) * np.cos(2 * np.pi * uniform[:, rank:])
    return (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32)


def _mixed(bits: NDArray[Any]) -> NDArray[Any]:
    """splitmix64's finaliser: neighbouring counts become unrelated bits."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _known(start: Factors, ids: DataFrame, kind: str, rank: int) -> tuple[NDArray[np.int64], Matrix]:
    """Indexes of today's ids that the start knows, and their factors, on the driver."""
    earlier = (start.users if kind == "user" else start.items).select(f"{kind}_id", "factors")
    rows = ids.join(earlier, on=f"{kind}_id", how="inner").select(f"{kind}_index", "factors").toArrow()
    index = rows.column(0).to_numpy().astype(np.int64)
    values = rows.column(1).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if values.size != index.size * rank:
        given = values.size // max(index.size, 1)
        raise ConfigError(f"als: the factors to start from have rank {given}, als.rank is {rank}")
    return index, values.astype(np.float32).reshape(-1, rank)


def _named(series: MatrixSeries, ids: DataFrame, kind: str) -> DataFrame:
    """({kind}_index, {kind}_id, factors), read on the executors and kept there: the file goes away."""
    shared = series.offer()

    def attach(batches: Any) -> Any:
        warm_worker()
        for batch in batches:
            index = batch.column(0).to_numpy()
            columns = [batch.column(0), batch.column(1), lists_of(shared.read(index))]
            yield pa.RecordBatch.from_arrays(columns, names=[f"{kind}_index", f"{kind}_id", "factors"])

    named = ids.select(f"{kind}_index", F.col(f"{kind}_id"))
    schema = f"{kind}_index int, {kind}_id string, factors array<float>"
    return checkpointed(named.mapInArrow(attach, schema))
