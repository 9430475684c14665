"""top_k beside the bare product and MLlib, in one run on the same factors.

`bench_topk.py --users 200000 --items 50000 --rank 64 --blend` · `bench_topk.py --users 60000 --mllib`

The bare product is the fastest we can make numpy's sgemm for the same stacked dimension on all cores: tiles
into reused buffers, nothing selected, nothing written. Ours is the whole of it: read Parquet, join what was
seen, rank, write Parquet. Factors are random normal numbers, the hardest case for any pruning.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.lake.session import start_session
from recsys_spark.ranking.kernel import Csr, ItemParts, UserParts, one_blas_thread, select
from recsys_spark.ranking.shared_items import SharedItems, share_items
from recsys_spark.ranking.top_k import top_k

CHUNK = 20_000  # users generated and written at a time
PRODUCT_USERS = 16_384  # the bare product is timed on so many users, and scaled
VOCABULARY, ITEM_TERMS, PROFILE_TERMS, HISTORY = 20_000, 12, 150, 40


@dataclass
class Peak:
    """Peak memory of this process and all below it (JVM and Python workers), in GB.

    Shared pages are counted once (PSS), where the system tells.
    """

    gb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(1.0):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    memory = process.memory_full_info()
                except psutil.Error:
                    continue
                total += getattr(memory, "pss", memory.rss)
            self.gb = max(self.gb, total / 1e9)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def lists_of(values: np.ndarray, per_row: int) -> pa.ListArray:
    offsets = pa.array(np.arange(0, values.size + 1, per_row, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))


def distinct_sorted(rng: np.random.Generator, rows: int, n: int, high: int) -> np.ndarray:
    """[rows, n] ascending distinct integers below high, low ones far more often (as words and items are)."""
    drawn = np.sort((high - n) * rng.random((rows, n)) ** 3, axis=1).astype(np.int32)
    return drawn + np.arange(n, dtype=np.int32)


def write_users(folder: Path, args: argparse.Namespace, dims: int) -> None:
    """users: ids, factors, and per user excluded items, terms with weights, history; exclude: the pairs."""
    for part, start in enumerate(range(0, args.users, CHUNK)):
        rng = np.random.default_rng([1, part])
        rows = min(CHUNK, args.users - start)
        user_id = pa.array([f"u{i:08d}" for i in range(start, start + rows)])
        seen = distinct_sorted(rng, rows, args.seen, args.items)
        weights = rng.random((rows, PROFILE_TERMS))
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        users = {
            "user_index": pa.array(np.arange(start, start + rows, dtype=np.int32)),
            "user_id": user_id,
            "factors": lists_of(rng.standard_normal((rows, dims)).astype(np.float32), dims),
            "excluded": lists_of(seen, args.seen),
            "terms": lists_of(distinct_sorted(rng, rows, PROFILE_TERMS, VOCABULARY), PROFILE_TERMS),
            "weights": lists_of(weights, PROFILE_TERMS),
            "history_items": lists_of(distinct_sorted(rng, rows, HISTORY, args.items), HISTORY),
            "history_values": lists_of(rng.random((rows, HISTORY)), HISTORY),
        }
        pairs = {
            "user_id": user_id.take(pa.array(np.repeat(np.arange(rows), args.seen))),
            "item_id": pa.array(np.char.mod("i%08d", seen.ravel())),
        }
        for name, columns in (("users", users), ("exclude", pairs)):
            (folder / name).mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), folder / name / f"part-{part:05d}.parquet")


def item_parts(args: argparse.Namespace, dims: int) -> ItemParts:
    rng = np.random.default_rng(2)
    values = rng.random((args.items, ITEM_TERMS)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    terms = distinct_sorted(rng, args.items, ITEM_TERMS, VOCABULARY)
    indptr = np.arange(0, terms.size + 1, ITEM_TERMS)
    dense = rng.standard_normal((args.items, dims)).astype(np.float32)
    return ItemParts(dense, Csr(indptr, terms.ravel(), values.ravel()))


def bare_product(items: np.ndarray, n_users: int, cores: int) -> float:
    """Seconds for the float32 product of n_users with all items, tile by tile, one thread per core."""
    rng = np.random.default_rng(3)
    sample = min(n_users, PRODUCT_USERS)
    users = rng.standard_normal((sample, items.shape[1])).astype(np.float32)
    tile_items, tile_users = 1024, 256

    def multiply(rows: np.ndarray) -> None:
        buffer = np.empty((tile_items, tile_users), np.float32)
        for u in range(0, len(rows), tile_users):
            block = np.ascontiguousarray(rows[u : u + tile_users].T)
            for i in range(0, len(items), tile_items):
                tile = items[i : i + tile_items]
                np.matmul(
                    tile, block, out=buffer.reshape(-1)[: len(tile) * block.shape[1]].reshape(len(tile), -1)
                )

    with one_blas_thread(), ThreadPoolExecutor(cores) as pool:
        shares = np.array_split(users, cores)
        best = min(seconds(lambda: list(pool.map(multiply, shares))) for _ in range(3))
    return best * n_users / sample


def full_blend(users: DataFrame, shared: SharedItems, k: int) -> DataFrame:
    """Dense parts, TF-IDF profile, history and seen mask, all in the tile."""

    def rank(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items, ids = shared.load()
        for batch in batches:

            def flat(name: str, batch: pa.RecordBatch = batch) -> np.ndarray:
                return batch.column(name).flatten().to_numpy(zero_copy_only=False)

            def rows(name: str, values: str | None = None, batch: pa.RecordBatch = batch) -> Csr:
                n = len(flat(name)) // batch.num_rows
                return Csr(
                    np.arange(0, n * batch.num_rows + 1, n),
                    flat(name),
                    None if values is None else flat(values),
                )

            parts = UserParts(
                flat("factors").reshape(batch.num_rows, -1).astype(np.float64),
                sparse=rows("terms", "weights"),
                additive=rows("history_items", "history_values"),
                excluded=rows("excluded"),
            )
            index, score = select(items, parts, k)
            user, place = np.nonzero(index >= 0)
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("user_id").take(pa.array(user)),
                    ids.take(pa.array(index[user, place])),
                    pa.array(score[user, place]),
                    pa.array(place.astype(np.int32) + 1),
                ],
                names=["user_id", "item_id", "score", "rank"],
            )

    partitions = 4 * users.sparkSession.sparkContext.defaultParallelism
    return users.repartition(partitions, "user_id").mapInArrow(
        rank, "user_id string, item_id string, score double, rank int"
    )


def mllib_model(spark: SparkSession, folder: Path, users: DataFrame, items: pa.Table, rank: int) -> ALSModel:
    """An ALSModel with our factors: a tiny one, saved, its factors exchanged."""
    ratings = spark.createDataFrame([(0, 0, 1.0), (1, 1, 1.0)], "user int, item int, rating float")
    path = str(folder / "als")
    ALS(rank=rank, maxIter=1, seed=1).fit(ratings).save(path)
    users.selectExpr("user_index as id", "factors as features").write.mode("overwrite").parquet(
        f"{path}/userFactors"
    )
    factors = spark.createDataFrame(items).selectExpr("item_index as id", "factors as features")
    factors.write.mode("overwrite").parquet(f"{path}/itemFactors")
    return ALSModel.load(path)


def run(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    dims = args.rank * (2 if args.blend else 1)
    write_users(folder, args, dims)
    parts = item_parts(args, dims)
    item_ids = pa.array(np.char.mod("i%08d", np.arange(args.items)))
    item_rows = pa.table(
        {
            "item_index": pa.array(np.arange(args.items, dtype=np.int32)),
            "item_id": item_ids,
            "factors": lists_of(parts.dense, dims),
        }
    )
    pq.write_table(item_rows, folder / "items.parquet")
    product = bare_product(parts.dense, args.users, args.cores)
    table = {"bare product": product}
    with Peak() as peak:
        spark = start_session(
            "bench top-k",
            {
                "spark.master": f"local[{args.cores}]",
                "spark.driver.memory": "3g",
                "spark.ui.enabled": "false",
                "spark.ui.showConsoleProgress": "false",
                "spark.driver.host": "127.0.0.1",
                "spark.sql.shuffle.partitions": str(4 * args.cores),
            },
        )
        users, exclude = (spark.read.parquet(str(folder / name)) for name in ("users", "exclude"))
        items = spark.read.parquet(str(folder / "items.parquet"))
        # Paid once per process, not per user: JVM warm-up, worker start, compiled loops from their cache.
        top_k(users.limit(500), items.limit(500), k=args.k).write.parquet(str(folder / "warm"))
        name = f"top_k, seen mask, {dims} dimensions"
        table[name] = seconds(
            lambda: top_k(users, items, k=args.k, exclude=exclude).write.parquet(str(folder / "ours"))
        )
        figures = {"vs_gemm": table[name] / product}
        if args.blend:
            shared = share_items(spark, parts, item_ids)
            table["full blend (TF-IDF, history)"] = seconds(
                lambda: full_blend(users, shared, args.k).write.parquet(str(folder / "full"))
            )
            figures["full_blend_vs_gemm"] = table["full blend (TF-IDF, history)"] / product
        figures["peak_gb"] = peak.gb
        if args.mllib:
            model = mllib_model(spark, folder, users, item_rows, dims)
            table["MLlib recommendForAllUsers, no mask"] = seconds(
                lambda: model.recommendForAllUsers(args.k).write.parquet(str(folder / "mllib"))
            )
            figures["vs_mllib"] = table["MLlib recommendForAllUsers, no mask"] / table[name]
        spark.stop()
    print(f"{args.users:,} users x {args.items:,} items, K = {args.k}, {args.cores} cores")
    for name, spent in table.items():
        print(f"  {name:<42} {spent:8.1f} s   {spent / product:6.2f} x product")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seen", type=int, default=30, help="items each user has seen")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--blend", action="store_true", help="two dense parts, then TF-IDF and history on top"
    )
    parser.add_argument("--mllib", action="store_true", help="time ALSModel.recommendForAllUsers too (slow)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-topk-"))
    try:
        figures = run(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
