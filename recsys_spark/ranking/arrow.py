"""Arrow columns of users and lists as the kernel takes them, and how many users it takes at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.parts import Csr


def users_at_once(n_shards: int) -> int:
    """How many users to rank in one call: every shard is mapped once per call."""
    return 2_048 if n_shards == 1 else 16_384


def indptr_of(lists: pa.Array) -> NDArray[np.int64]:
    """Where the rows of a column of lists begin in its flattened values; null is an empty row."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def csr_of(lists: pa.Array, values: pa.Array | None = None) -> Csr:
    """Two parallel columns of lists as sparse rows; null is an empty row."""
    indptr = indptr_of(lists)

    def flat(column: pa.Array) -> Any:
        return column.flatten().to_numpy(zero_copy_only=False)

    return Csr(indptr, flat(lists), None if values is None else flat(values))


def maps_of(columns: Mapping[str, NDArray[np.float64]], size: int) -> pa.Array:
    """A map<string, double> for each of `size` rows: the columns by name, in their order; nan is left out."""
    values = np.column_stack([*columns.values()]) if columns else np.zeros((size, 0))
    row, column = np.nonzero(~np.isnan(values))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=size))]).astype(np.int32)
    keys = pa.array([*columns], pa.string()).take(pa.array(column))
    return pa.MapArray.from_arrays(pa.array(offsets), keys, pa.array(values[row, column]))
