"""top_k beside the bare product and its peers, in one run on the same factors. Pieces, by --pieces:

    gemm     200,000 x 50,000, two dense parts of rank 64, seen mask: against the bare product; then with
             TF-IDF and history on top
    peers    60,000 x 50,000, rank 64: ALSModel.recommendForAllUsers (masks nothing), implicit's recommend
    replay   60,000 x 15,000, rank 64, the 2.4 million pairs of bench_als.py seen: against RePlay 0.22's
             ALSWrap, which asks MLlib for K items and as many more as the busiest user has seen
    growth   100,000, 300,000 and 1,000,000 users x 50,000 items, rank 64: time a user and peak memory, the
             JVM's heap being the same 1 GB from the start
    cluster  two standalone workers of one core, which share no folder with the driver, against one, on
             300,000 x 50,000; the lists also against those of local mode
    subset   300 candidates of 30,000 items beside a catalogue of 300, 200,000 users, rank 64, seen mask
    real     the kernel alone on the ALS factors of a lake that holds a night (RECSYS_LAKE, or data/lake of
             `make demo`), seen mask, one core, against the bare product

The bare product is the fastest we can make numpy's sgemm for the same stacked dimension: a process per core
with one BLAS thread each, tiles into reused buffers, nothing selected, nothing written. Ours is the whole of
it: read Parquet, join what was seen, rank, write Parquet. Factors are random normal numbers, all of nearly
the same norm: the hardest case for any pruning; `real` shows another. Seen items are drawn from a Zipf law.

The last line is JSON, null for what could not be measured: vs_gemm, full_blend_vs_gemm and real_vs_gemm (our
time / the product's), vs_mllib, vs_implicit and vs_replay (theirs / ours), peak_gb; growth: how much more a
user takes at the slowest of the three sizes than at the quickest (0.15: 15 %), growth_peak_gb: the largest
peak less the smallest; workers: one worker's time / that of two; subset: our time / a catalogue of 300's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from bench_als import make
from on_cluster import workers
from peers import peer_seconds
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession
from topk_data import Size, item_ids, real_parts, write_all, write_pairs

from recsys_spark.ranking.arrow import csr_of, users_at_once
from recsys_spark.ranking.kernel import select as kernel
from recsys_spark.ranking.kernel.select import ItemParts, UserParts, one_blas_thread, select
from recsys_spark.ranking.kernel.shards import Shards, in_memory
from recsys_spark.ranking.shared_items import SharedItems, share_items
from recsys_spark.ranking.top_k import release, top_k
from recsys_spark.runtime.batches import gathered
from recsys_spark.runtime.session import start_session

PRODUCT_USERS = 8_192  # the bare product is timed on so many users a core, and scaled
ROOT = Path(__file__).resolve().parents[1]
OURS, THEIRS = 8, 3  # runs, of which the best counts: our 3 s are over before the JVM has compiled them


@dataclass
class Peak:
    """Peak memory of this process and all below it (JVM and Python workers), in GB.

    Shared pages are counted once (PSS), where the system tells.
    """

    gb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

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


# --- the bare product ---------------------------------------------------------------------------


def product_share(items: int, dims: int, n_users: int) -> float:
    """Best of three, of the product of n_users with all items, in this process, with one BLAS thread."""
    rng = np.random.default_rng(3)
    catalogue = rng.standard_normal((items, dims)).astype(np.float32)
    users = rng.standard_normal((n_users, dims)).astype(np.float32)
    tile_items, tile_users = 1024, 512
    buffer = np.empty((tile_items, tile_users), np.float32)

    def multiply() -> None:
        for u in range(0, len(users), tile_users):
            block = np.ascontiguousarray(users[u : u + tile_users].T)
            for i in range(0, items, tile_items):
                tile = catalogue[i : i + tile_items]
                room = buffer.reshape(-1)[: len(tile) * block.shape[1]]
                np.matmul(tile, block, out=room.reshape(len(tile), -1))

    with one_blas_thread():
        return best_of(3, multiply)


def bare_product(size: Size, cores: int) -> float:
    """Seconds for the float32 product of all users with all items, a process per core."""
    sample = min(size.users // cores, PRODUCT_USERS)
    with ProcessPoolExecutor(cores, mp.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2] * cores))  # all are up before the first begins
        shares = [pool.submit(product_share, size.items, size.dims, sample) for _ in range(cores)]
        return max(share.result() for share in shares) * size.users / (sample * cores)


# --- ours and theirs ----------------------------------------------------------------------------


def full_blend(users: DataFrame, shared: SharedItems, k: int) -> DataFrame:
    """Dense parts, TF-IDF profile, history and seen mask, all in the tile."""

    def rank(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = shared.load()
        for batch in gathered(batches, users_at_once(1)):
            factors = batch.column("factors").flatten().to_numpy(zero_copy_only=False)
            parts = UserParts(
                factors.reshape(batch.num_rows, -1).astype(np.float64),
                sparse=csr_of(batch.column("terms"), batch.column("weights")),
                additive=csr_of(batch.column("history_items"), batch.column("history_values")),
                excluded=csr_of(batch.column("excluded")),
            )
            index, score = select(items.shards, parts, k)
            user, place = np.nonzero(index >= 0)
            columns = [
                batch.column("user_id").take(pa.array(user)),
                items.ids.take(pa.array(index[user, place])),
                pa.array(score[user, place]),
                pa.array(place.astype(np.int32) + 1),
            ]
            yield pa.RecordBatch.from_arrays(columns, names=["user_id", "item_id", "score", "rank"])

    partitions = 4 * users.sparkSession.sparkContext.defaultParallelism
    return users.repartition(partitions, "user_id").mapInArrow(
        rank, "user_id string, item_id string, score double, rank int"
    )


def mllib_model(spark: SparkSession, folder: Path, rank: int) -> ALSModel:
    """An ALSModel with our factors: a tiny one, saved, its factors exchanged."""
    ratings = spark.createDataFrame([(0, 0, 1.0), (1, 1, 1.0)], "user int, item int, rating float")
    path = str(folder / "als")
    ALS(rank=rank, maxIter=1, seed=1).fit(ratings).save(path)
    for source, index, name in (
        ("users", "user_index", "userFactors"),
        ("items.parquet", "item_index", "itemFactors"),
    ):
        factors = spark.read.parquet(str(folder / source)).selectExpr(f"{index} as id", "factors as features")
        factors.write.mode("overwrite").parquet(f"{path}/{name}")
    return ALSModel.load(path)


def local_conf(cores: int) -> dict[str, str]:
    return {
        "spark.master": f"local[{cores}]",
        "spark.driver.memory": "3g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": str(2 * cores),  # as conf/spark-local.conf has it
    }


def session(cores: int, **conf: str) -> SparkSession:
    given = {name.replace("_", "."): value for name, value in conf.items()}
    return start_session("bench top-k", local_conf(cores) | given)


def stop_session() -> None:
    active = SparkSession.getActiveSession()
    if active is not None:
        active.stop()


def best_of(times: int, call: Callable[[], object]) -> float:
    """The least seconds of so many calls: the first ones still compile, in the JVM and in Python."""
    return min(seconds(call) for _ in range(times))


def written(lists: DataFrame, folder: Path) -> None:
    """Write a result of top_k, and free what it held."""
    lists.write.mode("overwrite").parquet(str(folder))
    release(lists)


def ours(spark: SparkSession, folder: Path, k: int, *, times: int = 1) -> float:
    """Seconds from Parquet to Parquet; JVM, workers and compiled loops are warm."""
    users, exclude, items = (
        spark.read.parquet(str(folder / name)) for name in ("users", "exclude", "items.parquet")
    )

    def warm(n: int) -> None:
        few = top_k(users.limit(n), items.limit(n), k=k, exclude=exclude.limit(n))
        written(few, folder / "warm")

    for _ in range(2):  # a night's JVM has been at work for long when it comes to rank
        warm(20_000)
    return best_of(times, lambda: written(top_k(users, items, k=k, exclude=exclude), folder / "ours"))


# --- the pieces ---------------------------------------------------------------------------------


@dataclass
class Bench:
    """The run: where its files lie, and what it has found."""

    folder: Path
    cores: int
    k: int
    scale: float
    figures: dict[str, float] = field(default_factory=dict)

    def size(self, users: int, items: int, dims: int, *, blend: bool = False) -> Size:
        return Size(int(users * self.scale), int(items * self.scale), dims, blend)

    def place(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder

    def say(self, size: Size, rows: dict[str, float], product: float) -> None:
        shape = f"{size.users:,} users x {size.items:,} items, {size.dims} dimensions"
        print(f"{shape}, K = {self.k}, {self.cores} cores")
        for name, spent in rows.items():
            print(f"  {name:<44} {spent:8.2f} s   {spent / product:6.2f} x product", flush=True)

    def gemm(self) -> None:
        size, folder = self.size(200_000, 50_000, 128, blend=True), self.place("gemm")
        parts = write_all(folder, size)
        product = bare_product(size, self.cores)
        rows = {"bare product": product}
        with Peak() as peak:
            spark = session(self.cores)
            rows["top_k, two dense parts, seen mask"] = time_dense = ours(spark, folder, self.k, times=2)
            users = spark.read.parquet(str(folder / "users"))
            shared = share_items(spark, parts, item_ids(size))
            rows["with TF-IDF and history"] = time_full = seconds(
                lambda: full_blend(users, shared, self.k).write.parquet(str(folder / "full"))
            )
        self.say(size, rows, product)
        self.figures |= {"vs_gemm": time_dense / product, "full_blend_vs_gemm": time_full / product}
        self.figures["peak_gb"] = peak.gb

    def peers(self) -> None:
        size, folder = self.size(60_000, 50_000, 64), self.place("peers")
        parts = write_all(folder, size)
        product = bare_product(size, self.cores)
        spark = session(self.cores)
        rows = {"bare product": product, "top_k, seen mask": ours(spark, folder, self.k, times=OURS)}
        mine = rows["top_k, seen mask"]
        model = mllib_model(spark, folder, size.dims)
        name = "MLlib recommendForAllUsers, no mask"
        theirs = str(folder / "mllib")
        rows[name] = best_of(
            THEIRS, lambda: model.recommendForAllUsers(self.k).write.mode("overwrite").parquet(theirs)
        )
        self.figures["vs_mllib"] = rows[name] / mine
        spent = self._implicit(folder, parts)
        if spent is not None:
            rows["implicit recommend, seen filter, arrays only"] = spent
            self.figures["vs_implicit"] = spent / mine
        self.say(size, rows, product)

    def _implicit(self, folder: Path, parts: ItemParts) -> float | None:
        table = pq.read_table(folder / "users", columns=["factors"]).column("factors").combine_chunks()
        users = table.flatten().to_numpy().reshape(len(table), -1)
        pairs = pq.read_table(folder / "exclude", columns=["item_id"]).column("item_id").to_pylist()
        seen = np.array([int(item[1:]) for item in pairs], np.int32).reshape(len(users), -1)
        for name, values in (("users", users), ("items", parts.dense), ("seen", seen)):
            np.save(folder / f"{name}.npy", values)
        return peer_seconds("recommend", folder, self.cores)

    def replay(self) -> None:
        size, folder = self.size(60_000, 15_000, 64), self.place("replay")
        write_all(folder, size)
        write_pairs(folder / "exclude", make(size.users, size.items, 40 * size.users))
        product = bare_product(size, self.cores)
        mine = ours(session(self.cores), folder, self.k, times=OURS)
        rows = {"bare product": product, "top_k, seen mask": mine}
        stop_session()
        spent = peer_seconds("predict", folder, self.cores)
        if spent is not None:
            rows["RePlay ALSWrap.predict, seen filter"] = spent
            self.figures["vs_replay"] = spent / mine
        self.say(size, rows, product)

    def growth(self) -> None:
        per_user: dict[int, float] = {}
        peaks = []
        for users in (100_000, 300_000, 1_000_000):
            size, folder = self.size(users, 50_000, 64), self.place(f"growth-{users}")
            write_all(folder, size)
            stop_session()
            heap = {"spark_driver_memory": "1g", "spark_driver_extraJavaOptions": "-Xms1g"}
            with Peak() as peak:
                spark = session(self.cores, **heap)
                if not per_user:  # the JVM is the same for all sizes, and compiles for long
                    ours(spark, folder, self.k, times=OURS)
                spent = ours(spark, folder, self.k, times=max(2, 600_000 // users))
            shutil.rmtree(folder)
            per_user[size.users] = spent / size.users
            peaks.append(peak.gb)
            print(
                f"{size.users:,} users x {size.items:,} items: {spent:.1f} s, {peak.gb:.2f} GB at the peak",
                flush=True,
            )
        least = min(per_user.values())
        for users, spent in per_user.items():
            above = f"{spent / least - 1:.1%} above the quickest"
            print(f"  {users:>9,} users: {1e6 * spent:6.2f} us a user, {above}")
        self.figures |= {
            "growth": max(per_user.values()) / least - 1,
            "growth_peak_gb": max(peaks) - min(peaks),
        }

    def cluster(self) -> None:
        size, spent, lists = self.size(300_000, 50_000, 64), {}, {}
        conf = local_conf(2) | {"spark.executor.memory": "1g"}
        for n in (1, 2):
            folder = self.place(f"cluster-{n}")
            with workers(folder, n, memory="2g", conf=conf) as spark:
                write_all(folder / "shared", size)
                spent[n] = ours(spark, folder / "shared", self.k, times=3)
            lists[f"{n} on workers"] = in_order(folder / "shared" / "ours")
            print(f"{n} standalone workers of one core, {size.users:,} users: {spent[n]:.1f} s", flush=True)
        ours(session(self.cores), folder / "shared", self.k)
        lists["local mode"] = in_order(folder / "shared" / "ours")
        [first, *others] = lists.items()
        for name, other in others:
            if not first[1].equals(other):
                raise SystemExit(f"{name} gave other lists than {first[0]}")
        print(f"{first[1].num_rows:,} slots, the same on one worker, on two and in local mode", flush=True)
        self.figures["workers"] = spent[1] / spent[2]

    def subset(self) -> None:
        size, folder = self.size(200_000, 30_000, 64), self.place("subset")
        write_all(folder, size)
        spark = session(self.cores)
        users, exclude, items = (
            spark.read.parquet(str(folder / name)) for name in ("users", "exclude", "items.parquet")
        )
        on_sale = items.where(f"item_index % {max(size.items // 300, 1)} = 0")
        for name, frame in (
            ("few", on_sale),
            ("seen", exclude.join(on_sale.select("item_id"), "item_id", "left_semi")),
        ):
            frame.write.parquet(str(folder / name))
        few, seen = (spark.read.parquet(str(folder / name)) for name in ("few", "seen"))
        ours(spark, folder, self.k)
        ways = {
            "whole catalogue": lambda: top_k(users, items, k=self.k, exclude=exclude),
            "candidates of it": lambda: top_k(
                users, items, k=self.k, exclude=exclude, candidates=few.select("item_id")
            ),
            "a catalogue of them, all seen pairs": lambda: top_k(users, few, k=self.k, exclude=exclude),
            "a catalogue of them, its own seen pairs": lambda: top_k(users, few, k=self.k, exclude=seen),
        }
        spent: dict[str, float] = {}
        print(f"{size.users:,} users, {few.count()} of {size.items:,} items, {size.dims} dimensions")
        for number, (name, ranked) in enumerate(ways.items()):
            spent[name] = best_of(3, lambda ranked=ranked, at=folder / f"way-{number}": written(ranked(), at))
            print(f"  {name:<44} {spent[name]:8.2f} s", flush=True)
        lists = [in_order(folder / f"way-{number}") for number in (1, 2, 3)]
        if not lists[0].equals(lists[1]) or not lists[0].equals(lists[2]):
            raise SystemExit("candidates gave other lists than a catalogue of them")
        _, candidates, _, catalogue = spent.values()
        self.figures["subset"] = candidates / catalogue

    def real(self) -> None:
        lake = Path(os.environ.get("RECSYS_LAKE", ROOT / "data" / "lake"))
        if not (lake / "models" / "als_item_factors" / "_delta_log").exists():
            print(f"real: skipped, {lake} holds no night; `make demo` makes one.", flush=True)
            return
        items, users = real_parts(session(self.cores), lake)
        n_items, dims = items.dense.shape
        product = product_share(n_items, dims, users.n_users)
        shards = in_memory(items)
        rows = {"bare product": product}
        for name, loops in (("as it is", kernel.code_loops), ("float32, without codes", lambda: None)):
            usual, kernel.code_loops = kernel.code_loops, loops
            try:
                rows[f"kernel {name}"] = best_of(5, lambda: ranked_apart(shards, users, self.k))
            finally:
                kernel.code_loops = usual
        print(f"{users.n_users:,} users x {n_items:,} items of a real night, {dims} dimensions, one core")
        for name, spent in rows.items():
            print(f"  {name:<44} {spent:8.3f} s   {spent / product:6.2f} x product", flush=True)
        self.figures["real_vs_gemm"] = rows["kernel as it is"] / product
        self.figures["real_float32_vs_gemm"] = rows["kernel float32, without codes"] / product


def in_order(folder: Path) -> pa.Table:
    """A list's slots, however they were spread over files."""
    return pq.read_table(folder).sort_by([("user_id", "ascending"), ("rank", "ascending")])


def ranked_apart(shards: Shards, users: UserParts, k: int) -> None:
    """What a task does with its batches, without Spark."""
    for start in range(0, users.n_users, users_at_once(1)):
        select(shards, users.rows(start, start + users_at_once(1)), k)


# What each piece adds to the line of JSON.
PIECES = {
    "gemm": ("vs_gemm", "full_blend_vs_gemm", "peak_gb"),
    "peers": ("vs_mllib", "vs_implicit"),
    "replay": ("vs_replay",),
    "growth": ("growth", "growth_peak_gb"),
    "cluster": ("workers",),
    "subset": ("subset",),
    "real": ("real_vs_gemm", "real_float32_vs_gemm"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pieces", default="all", help=f"some of {', '.join(PIECES)}, or all of them")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--scale", type=float, default=1.0, help="users and items times this, for a try")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    chosen = list(PIECES) if args.pieces == "all" else args.pieces.split(",")
    if unknown := set(chosen) - set(PIECES):
        parser.error(f"no piece {', '.join(sorted(unknown))}: have {', '.join(PIECES)}")
    figures: dict[str, float | None] = {name: None for piece in chosen for name in PIECES[piece]}
    # A process a piece: its JVM is one that no other piece has warmed or filled.
    with ProcessPoolExecutor(1, mp.get_context("spawn"), max_tasks_per_child=1) as pool:
        for piece in chosen:
            figures |= pool.submit(measured, piece, args).result()
    print(json.dumps({name: value and round(value, 3) for name, value in figures.items()}))


def measured(piece: str, args: argparse.Namespace) -> dict[str, float]:
    """The figures of one piece, by name; its tables are printed."""
    folder = Path(tempfile.mkdtemp(prefix="bench-topk-"))
    bench = Bench(folder, args.cores, args.k, args.scale)
    try:
        getattr(bench, piece)()
        stop_session()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return bench.figures


if __name__ == "__main__":
    main()
