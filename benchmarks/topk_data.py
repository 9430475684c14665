"""What bench_topk.py ranks: random factors, words and histories, and those of a real night."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bench_als import Data
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.ranking.kernel.select import Csr, ItemParts, UserParts

CHUNK = 10_000  # users generated and written at a time
VOCABULARY, ITEM_TERMS, PROFILE_TERMS, HISTORY, SEEN = 20_000, 12, 150, 40, 30


@dataclass(frozen=True)
class Size:
    """users x items, D dimensions; blend: what TF-IDF and history need is generated too."""

    users: int
    items: int
    dims: int
    blend: bool = False


def lists_of(values: np.ndarray, per_row: int) -> pa.ListArray:
    offsets = pa.array(np.arange(0, values.size + 1, per_row, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))


def zipf_rows(rng: np.random.Generator, rows: int, n: int, high: int) -> np.ndarray:
    """[rows, n] ascending distinct integers below high; the r-th most popular of them has weight 1/(r + 1).

    Popular ones are spread over the range, as item ids are.
    """
    rank = np.minimum(np.exp(rng.random((rows, 2 * n)) * np.log(high + 1)).astype(np.int64) - 1, high - 1)
    drawn = np.sort(rank * 7_919 % high, axis=1)
    again = np.diff(drawn, axis=1, prepend=-1) == 0
    filler = np.argsort(again, axis=1, kind="stable")[:, :n]  # distinct ones first
    chosen = np.sort(np.take_along_axis(drawn, filler, axis=1), axis=1)
    while np.any(same := np.diff(chosen, axis=1, prepend=-1) == 0):
        chosen = np.sort(np.where(same, rng.integers(0, high, chosen.shape), chosen), axis=1)
    return chosen.astype(np.int32)


def write_users(folder: Path, size: Size) -> None:
    """users: ids, factors and, for a blend, excluded items, terms with weights, history; exclude: pairs."""
    for part, start in enumerate(range(0, size.users, CHUNK)):
        rng = np.random.default_rng([1, part])
        rows = min(CHUNK, size.users - start)
        user_id = pa.array([f"u{i:08d}" for i in range(start, start + rows)])
        seen = zipf_rows(rng, rows, SEEN, size.items)
        users = {
            "user_index": pa.array(np.arange(start, start + rows, dtype=np.int32)),
            "user_id": user_id,
            "factors": lists_of(rng.standard_normal((rows, size.dims)).astype(np.float32), size.dims),
        }
        if size.blend:
            weights = rng.random((rows, PROFILE_TERMS))
            weights /= np.linalg.norm(weights, axis=1, keepdims=True)
            users |= {
                "excluded": lists_of(seen, SEEN),
                "terms": lists_of(zipf_rows(rng, rows, PROFILE_TERMS, VOCABULARY), PROFILE_TERMS),
                "weights": lists_of(weights, PROFILE_TERMS),
                "history_items": lists_of(zipf_rows(rng, rows, HISTORY, size.items), HISTORY),
                "history_values": lists_of(rng.random((rows, HISTORY)), HISTORY),
            }
        pairs = {
            "user_id": user_id.take(pa.array(np.repeat(np.arange(rows), SEEN))),
            "item_id": pa.array(np.char.mod("i%08d", seen.ravel())),
        }
        for name, columns in (("users", users), ("exclude", pairs)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), folder / name / f"part-{part:05d}.parquet")


def write_pairs(folder: Path, pairs: Data) -> None:
    """Seen pairs of made-up users, of whom some have seen far more than others, in place of what is there."""
    shutil.rmtree(folder)
    folder.mkdir()
    ids = {"user_id": np.char.mod("u%08d", pairs.user), "item_id": np.char.mod("i%08d", pairs.item)}
    pq.write_table(pa.table(ids), folder / "part-00000.parquet")


def item_ids(size: Size) -> pa.Array:
    return pa.array(np.char.mod("i%08d", np.arange(size.items)))


def item_parts(size: Size) -> ItemParts:
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((size.items, size.dims)).astype(np.float32)
    if not size.blend:
        return ItemParts(dense)
    values = rng.random((size.items, ITEM_TERMS)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    terms = zipf_rows(rng, size.items, ITEM_TERMS, VOCABULARY)
    return ItemParts(dense, Csr(np.arange(0, terms.size + 1, ITEM_TERMS), terms.ravel(), values.ravel()))


def write_all(folder: Path, size: Size) -> ItemParts:
    write_users(folder, size)
    parts = item_parts(size)
    columns = {
        "item_index": pa.array(np.arange(size.items, dtype=np.int32)),
        "item_id": item_ids(size),
        "factors": lists_of(parts.dense, size.dims),
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")
    return parts


def real_parts(spark: SparkSession, lake: Path) -> tuple[ItemParts, UserParts]:
    """Factors of the ALS model with the most users in the lake, and what each has a preference for."""

    def table(*name: str) -> DataFrame:
        return spark.read.format("delta").load(str(lake.joinpath(*name)))

    users, items = table("models", "als_user_factors"), table("models", "als_item_factors")
    counts = users.groupBy("model_version").count().orderBy("count", "model_version").collect()
    is_chosen = F.col("model_version") == counts[-1]["model_version"]
    sides = {}
    for name, rows in (("user_id", users), ("item_id", items)):
        side = rows.where(is_chosen).orderBy(name).select(name, "factors").toArrow()
        values = side.column("factors").combine_chunks().flatten().to_numpy()
        sides[name] = side.column(name).combine_chunks(), values.reshape(side.num_rows, -1)
    preferences = table("silver", "preferences")
    last = preferences.agg(F.max("run_date")).head()
    pairs = preferences.where(F.col("run_date") == last[0]).select(*sides).toArrow()
    row, column = (pc.index_in(pairs.column(name), value_set=ids) for name, (ids, _) in sides.items())
    known = pc.and_(row.is_valid(), column.is_valid())
    row, column = (at.filter(known).to_numpy() for at in (row, column))
    order = np.lexsort((column, row))
    x, y = sides["user_id"][1], sides["item_id"][1]
    indptr = np.searchsorted(row[order], np.arange(len(x) + 1)).astype(np.int64)
    seen = Csr(indptr, column[order].astype(np.int32))
    return ItemParts(y.astype(np.float32)), UserParts(x.astype(np.float64), excluded=seen)
