"""The two ALS trainers side by side, and `implicit` where it can be had, in one run on the same data.

`bench_als.py` · `bench_als.py --pairs 2400000` · `bench_als.py --pairs 24000000 --mllib-iterations 3`
`bench_als.py --workers`: the fast trainer on one standalone worker of one core and on two

Made-up data: users belong to groups with tastes of their own among the groups of items, popularity follows
Zipf. All trainers begin from the same indexed Parquet file; MLlib is given it unsorted, which is its
fastest. Its native BLAS is used where the system has one (Debian: libopenblas0); the table tells.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from on_cluster import workers
from peers import peer_seconds
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from scipy.sparse import csr_matrix, save_npz

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Als
from recsys_spark.evaluation.metrics.significance import paired_bootstrap
from recsys_spark.models.als.cg import fit_cg
from recsys_spark.models.als.factors import Factors, IndexedPairs, Iteration
from recsys_spark.models.als.fit import mllib_estimator
from recsys_spark.models.als.loss import als_loss
from recsys_spark.models.als.solve import Objective
from recsys_spark.runtime.session import start_session

GROUPS, JUDGED, HELD_OUT = 40, 3_000, 5
SETTINGS: dict[str, Any] = {
    "iterations": 10,
    "regularization": 0.05,
    "alpha": 2.0,
    "user_blocks": 4,
    "item_blocks": 4,
    "checkpoint_interval": 5,
    "seed": 20171203,
    "trainer": "cg",
    "feedback": "implicit",
    "scaling_exponent": 1.0,
    "cg_steps": 3,
    "driver_pairs": 5_000_000,
    "tolerance": 0.0,
    "warm_start": False,
}


def als(rank: int, **changed: Any) -> Als:
    """The settings of base.toml but for what is measured here."""
    return Als(**{**load_settings("demo").als.model_dump(), **SETTINGS, "rank": rank, **changed})


@dataclass
class Data:
    """Pairs to train on, sorted, and what was held out of the first JUDGED users."""

    user: np.ndarray
    item: np.ndarray
    strength: np.ndarray
    held_out: list[np.ndarray]
    n_users: int
    n_items: int


def make(n_users: int, n_items: int, n_pairs: int) -> Data:
    """Every user and every item has a pair; a user draws from the items as its group likes them."""
    rng = np.random.default_rng(1)
    popularity = 1 / (np.arange(n_items) + 20.0) ** 0.8
    popularity = popularity[rng.permutation(n_items)]
    group_of_item, group_of_user = rng.integers(GROUPS, size=n_items), rng.integers(GROUPS, size=n_users)
    taste = np.exp(1.5 * rng.normal(size=(GROUPS, GROUPS)))
    activity = rng.pareto(2.5, n_users) + 1
    drawn = np.maximum((activity / activity.sum() * n_pairs * 1.9).astype(int), 8)
    keys = []
    for group in range(GROUPS):
        users = np.repeat(np.flatnonzero(group_of_user == group), drawn[group_of_user == group])
        ends = np.cumsum(popularity * taste[group, group_of_item])
        items = np.searchsorted(ends, rng.random(users.size) * ends[-1])
        keys.append(np.unique(users.astype(np.int64) * n_items + items))
    every = np.concatenate(
        [
            np.arange(n_users) * np.int64(n_items) + rng.integers(n_items, size=n_users),
            rng.integers(n_users, size=n_items) * np.int64(n_items) + np.arange(n_items),
        ]
    )
    rest = np.setdiff1d(np.concatenate(keys), every)
    every = np.unique(every)
    rest = rng.permutation(rest)[: n_pairs - every.size]
    held_out = [np.empty(0, np.int64)] * JUDGED
    rest.sort()
    starts = np.searchsorted(rest, np.arange(JUDGED + 1) * np.int64(n_items))
    kept = np.ones(rest.size, bool)
    for u in range(JUDGED):
        own = np.arange(starts[u], starts[u + 1])
        chosen = rng.permutation(own)[: min(HELD_OUT, own.size // 2)]
        kept[chosen] = False
        held_out[u] = rest[chosen] % n_items
    key = np.union1d(every, rest[kept])
    strength = (1 + rng.geometric(0.5, key.size)).astype(np.float32)
    user, item = (key // n_items).astype(np.int32), (key % n_items).astype(np.int32)
    return Data(user, item, strength, held_out, n_users, n_items)


def yesterday(data: Data, share: float = 0.02) -> Data:
    """The same without a random share of the pairs; every user and item keeps its first."""
    kept = np.random.default_rng(2).random(data.user.size) >= share
    for index in (data.user, data.item):
        kept[np.unique(index, return_index=True)[1]] = True
    return Data(
        data.user[kept], data.item[kept], data.strength[kept], data.held_out, data.n_users, data.n_items
    )


def indexed(spark: SparkSession, data: Data, folder: Path) -> IndexedPairs:
    columns = {"user_index": data.user, "item_index": data.item, "strength": data.strength}
    folder.mkdir()
    for part, rows in enumerate(np.array_split(np.random.default_rng(3).permutation(data.user.size), 8)):
        pq.write_table(pa.table({n: c[rows] for n, c in columns.items()}), folder / f"{part}.parquet")
    users, items = (
        spark.range(n)
        .select(
            F.col("id").cast("int").alias(f"{kind}_index"), F.format_string("%08d", "id").alias(f"{kind}_id")
        )
        .localCheckpoint(eager=True)
        for kind, n in (("user", data.n_users), ("item", data.n_items))
    )
    pairs = spark.read.parquet(str(folder))
    return IndexedPairs(users, items, pairs, data.n_users, data.n_items, data.user.size)


def matrices(users: Any, items: Any, index: tuple[str, str], factors: str) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for frame, name in zip((users, items), index, strict=True):
        table = frame.select(name, factors).toArrow().sort_by(name)
        found.append(table.column(1).combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1))
    return found[0], found[1]


def mllib(pairs: IndexedPairs, settings: Als) -> tuple[float, np.ndarray, np.ndarray]:
    start = time.perf_counter()
    model = mllib_estimator(settings, settings.iterations).fit(pairs.pairs)
    spent = time.perf_counter() - start
    return spent, *matrices(model.userFactors, model.itemFactors, ("id", "id"), "features")


def ours(pairs: IndexedPairs, settings: Als, start: Factors | None = None) -> tuple[Factors, Any]:
    factors = fit_cg(pairs, settings, start=start)
    return factors, by_index(factors)


def by_index(factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    return matrices(factors.users, factors.items, ("user_index", "item_index"), "factors")


def ndcg(data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """NDCG@10 of each judged user; what they trained on is not offered."""
    starts = np.searchsorted(data.user, np.arange(JUDGED + 1))
    discounts, found = 1 / np.log2(np.arange(2, 12)), np.full(JUDGED, np.nan)
    for u in range(JUDGED):
        if data.held_out[u].size:
            scores = y @ x[u]
            scores[data.item[starts[u] : starts[u + 1]]] = -np.inf
            best = np.argsort(-scores, kind="stable")[:10]
            ideal = discounts[: data.held_out[u].size].sum()
            found[u] = (np.isin(best, data.held_out[u]) * discounts).sum() / ideal
    return found[~np.isnan(found)]


def per_iteration(history: tuple[Iteration, ...]) -> float:
    return statistics.median(later.seconds - earlier.seconds for earlier, later in pairwise(history))


def iterations_to(history: tuple[Iteration, ...], loss: float) -> int:
    """Iterations to that loss. SystemExit: it was not reached."""
    reached = [one.iteration for one in history if one.loss <= loss]
    if not reached:
        raise SystemExit(f"{len(history)} iterations ended above the loss of {loss:,.0f}")
    return reached[0]


def to_loss(
    pairs: IndexedPairs, settings: Als, loss: float, start: Factors | None = None
) -> tuple[float, Factors, tuple[np.ndarray, np.ndarray]]:
    """Seconds of a fit that ends where it reaches the loss, handing out its factors included; and those."""
    count = iterations_to(fit_cg(pairs, settings, start=start).history, loss)
    began = time.perf_counter()
    factors = fit_cg(pairs, settings.model_copy(update={"iterations": count}), start=start)
    return time.perf_counter() - began, factors, by_index(factors)


def implicit_seconds(data: Data, settings: Als, cores: int) -> float | None:
    """Median seconds of an iteration of implicit's conjugate gradient, or None where it cannot be had."""
    confidence = csr_matrix(
        (settings.alpha * data.strength, (data.user, data.item)), (data.n_users, data.n_items)
    )
    with tempfile.TemporaryDirectory(prefix="bench-als-") as folder:
        save_npz(Path(folder) / "confidence.npz", confidence)
        (Path(folder) / "rank.json").write_text(json.dumps(settings.rank))
        return peer_seconds("fit", Path(folder), cores)


def mllib_to_ten(
    data: Data, pairs: IndexedPairs, settings: Als, measured: int
) -> tuple[float, float, np.ndarray | None, str]:
    """Seconds of ten iterations, the loss they reach, NDCG per user, and how the seconds were found."""
    objective = Objective.of(settings)
    exact = settings.model_copy(update={"trainer": "mllib"})
    if measured >= settings.iterations:
        spent, x, y = mllib(pairs, exact)
        return (
            spent,
            als_loss(x, y, data.user, data.item, data.strength, objective),
            ndcg(data, x, y),
            "measured",
        )
    first = mllib(pairs, exact.model_copy(update={"iterations": 1}))[0]
    several = mllib(pairs, exact.model_copy(update={"iterations": measured}))[0]
    each = (several - first) / (measured - 1)
    factors, _ = ours(pairs, settings.model_copy(update={"cg_steps": 15}))
    how = f"from 1 and {measured} iterations, {each:.1f} s each; its loss from 15 exact-like steps"
    return first + (settings.iterations - 1) * each, factors.history[-1].loss, None, how


def kept(args: argparse.Namespace, n_pairs: int) -> Data:
    """The data, from the folder --data where an earlier run has left it there."""
    if not args.data:
        return make(args.users, args.items, n_pairs)
    path = Path(args.data) / f"als-{args.users}-{args.items}-{n_pairs}.pickle"
    if not path.exists():
        path.write_bytes(pickle.dumps(make(args.users, args.items, n_pairs)))
    return pickle.loads(path.read_bytes())


def compare(spark: SparkSession, folder: Path, args: argparse.Namespace, n_pairs: int) -> dict[str, float]:
    data = kept(args, n_pairs)
    pairs = indexed(spark, data, folder / f"pairs-{n_pairs}")
    settings = als(args.rank)
    print(f"\n{args.users:,} users x {args.items:,} items, {data.user.size:,} pairs, rank {args.rank}")
    # Each size once before it is timed: Java's heap grows to it, and compiles, for both trainers alike.
    ours(pairs, settings.model_copy(update={"iterations": 1}))
    spent, target, judged, how = mllib_to_ten(data, pairs, settings, args.mllib_iterations)
    mine, factors, (x, y) = to_loss(pairs, settings.model_copy(update={"iterations": 14}), target)
    cold = factors.history
    print(f"  MLlib, 10 iterations           {spent:8.1f} s   loss {target:,.0f}   ({how})")
    print(f"  cg, to that loss               {mine:8.1f} s   {spent / mine:.1f} x")
    for one in cold:
        print(f"    {one.iteration:3d} {one.loss:16,.0f} {one.seconds:8.2f} s")
    if judged is not None:
        own = ndcg(data, x, y)
        between = paired_bootstrap(own - judged, samples=1_000, seed=1)
        print(f"  NDCG@10: cg {own.mean():.4f}, MLlib {judged.mean():.4f}, difference {between}")
    before = ours(indexed(spark, yesterday(data), folder / f"before-{n_pairs}"), settings)[0]
    warm = to_loss(pairs, settings.model_copy(update={"iterations": 4}), target, before)[0]
    print(f"  cg, warm, to that loss         {warm:8.1f} s")
    figures = {
        "vs_mllib": spent / mine,
        "warm_start": warm / mine,
        "seconds_per_iteration": per_iteration(cold),
    }
    theirs = implicit_seconds(data, settings, args.cores)
    if theirs is not None:
        figures["vs_implicit"] = per_iteration(cold) / theirs
        print(f"  an iteration: cg {per_iteration(cold):.2f} s, implicit {theirs:.2f} s")
    return figures


def on_workers(folder: Path, args: argparse.Namespace, n_pairs: int) -> dict[str, float]:
    """Seconds of an iteration on one worker over those on two, which must give the same factors."""
    data, spent, found = kept(args, n_pairs), {}, {}
    settings = als(args.rank, iterations=5, driver_pairs=0)
    conf = {
        "spark.driver.memory": args.memory,
        "spark.executor.memory": "2g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "4",
    }
    for n in (1, 2):
        place = folder / f"workers-{n}"
        place.mkdir()
        with workers(place, n, memory="3g", conf=conf) as spark:
            pairs = indexed(spark, data, place / "shared" / "pairs")
            factors, found[n] = ours(pairs, settings)
            spent[n] = per_iteration(factors.history)
        print(
            f"  {n} standalone workers of one core, {data.user.size:,} pairs: {spent[n]:.2f} s an iteration",
            flush=True,
        )
    if any(not np.array_equal(one, two) for one, two in zip(found[1], found[2], strict=True)):
        raise SystemExit("two workers gave other factors than one")
    return {"two_workers_vs_one": spent[1] / spent[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=60_000)
    parser.add_argument("--items", type=int, default=15_000)
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=[2_400_000, 24_000_000], help="small size, large size"
    )
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--memory", default="6g", help="heap of Spark")
    parser.add_argument(
        "--mllib-iterations", type=int, default=10, help="fewer: MLlib's time is extrapolated linearly"
    )
    parser.add_argument("--data", default="", help="folder to keep the made-up data in; making it is slow")
    parser.add_argument("--workers", action="store_true", help="one standalone worker against two, no more")
    parser.add_argument("--only-data", action="store_true", help="make the data in --data, and stop")
    args = parser.parse_args()
    if args.only_data:
        for n_pairs in args.pairs:
            kept(args, n_pairs)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-als-"))
    if args.workers:
        try:
            ratios = [on_workers(folder, args, n_pairs) for n_pairs in args.pairs[-1:]]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(ratios[0]))
        return
    try:
        spark = start_session(
            "bench ALS",
            {
                "spark.master": f"local[{args.cores}]",
                "spark.driver.memory": args.memory,
                "spark.ui.enabled": "false",
                "spark.ui.showConsoleProgress": "false",
                "spark.driver.host": "127.0.0.1",
                "spark.sql.shuffle.partitions": str(2 * args.cores),
            },
        )
        spark.sparkContext.setCheckpointDir(str(folder / "checkpoints"))
        jvm: Any = spark.sparkContext._jvm  # noqa: SLF001
        print("MLlib's BLAS:", jvm.dev.ludovic.netlib.blas.BLAS.getInstance().getClass().getName())
        warm_up = make(
            3_100, 600, 60_000
        )  # JVM, Python workers, compiled loops: once per process, not per fit
        small = als(args.rank, iterations=2)
        again = indexed(spark, warm_up, folder / "warm-up")
        for limit in (0, 10**9):
            ours(again, small.model_copy(update={"driver_pairs": limit}))
        mllib(again, small.model_copy(update={"trainer": "mllib"}))
        found = [compare(spark, folder, args, n_pairs) for n_pairs in args.pairs]
        spark.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures = found[-1]
    if len(found) > 1:
        figures["vs_mllib_small"] = found[0]["vs_mllib"]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
