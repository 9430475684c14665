"""Peers, each in an environment of its own (.tools/NAME): made on first use, versions pinned in NAME.txt.

peers.py recommend FOLDER CORES    implicit's `recommend` with the seen filter, the best of three, on
                                   FOLDER's users.npy, items.npy and seen.npy
peers.py fit FOLDER CORES          an iteration of implicit's conjugate gradient, the median of four, on
                                   confidence.npz, of the rank in rank.json
peers.py predict FOLDER CORES      RePlay's ALSWrap.predict with its seen filter, once, to Parquet, on
                                   FOLDER's users, items.parquet and exclude (ids: a letter and the index)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"recommend": "implicit", "fit": "implicit", "predict": "replay"}


def peer_seconds(what: str, folder: Path, cores: int) -> float | None:
    """Their time on what is in `folder`; None, with a sentence, where the package cannot be had."""
    name = PACKAGES[what]
    uv, pins = ROOT / ".tools/uv/bin/uv", ROOT / "benchmarks" / f"{name}.txt"
    home = ROOT / ".tools" / name
    python, ready = home / "bin" / "python", home / ".ready"
    try:
        if not ready.exists() or ready.read_text() != pins.read_text():
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True)
            fill = [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                python,
                "--only-binary",
                "implicit",
                "-r",
                pins,
            ]
            subprocess.run(fill, check=True)
            ready.write_text(pins.read_text())
        threads = {"OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": "1"}
        environment = {**os.environ, **threads}
        for name_of in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):  # ours, where Spark runs in this process
            environment.pop(name_of, None)
        command = [python, __file__, what, folder, str(cores)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        told = (getattr(error, "stderr", None) or "").strip().splitlines()[-1:]
        print(f"  {what}: {name} could not be had or run: {error} {' '.join(told)}")
        return None
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def recommend(folder: Path, _: int) -> float:
    import numpy as np  # noqa: PLC0415  # of the other environment
    from implicit.als import AlternatingLeastSquares  # noqa: PLC0415
    from scipy.sparse import csr_matrix  # noqa: PLC0415

    users, items, seen = (np.load(folder / f"{name}.npy") for name in ("users", "items", "seen"))
    model = AlternatingLeastSquares(factors=users.shape[1])
    model.user_factors, model.item_factors = users, items
    indptr = np.arange(0, seen.size + 1, seen.shape[1])
    liked = csr_matrix((np.ones(seen.size, np.float32), seen.ravel(), indptr), (len(users), len(items)))
    model.recommend(np.arange(256), liked[:256], N=10)
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        model.recommend(np.arange(len(users)), liked, N=10, filter_already_liked_items=True)
        spent.append(time.perf_counter() - start)
    return min(spent)


def fit(folder: Path, cores: int) -> float:
    from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415
    from scipy.sparse import load_npz  # noqa: PLC0415

    rank = json.loads((folder / "rank.json").read_text())
    model = AlternatingLeastSquares(
        factors=rank, regularization=0.05, iterations=4, num_threads=cores, use_cg=True
    )
    spent: list[float] = []
    model.fit(
        load_npz(folder / "confidence.npz"), show_progress=False, callback=lambda *at: spent.append(at[1])
    )
    return statistics.median(spent)


def predict(folder: Path, cores: int) -> float:
    from pyspark.ml.recommendation import ALSModel  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415
    from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureType  # noqa: PLC0415
    from replay.models import ALSWrap  # noqa: PLC0415
    from replay.utils.session_handler import State  # noqa: PLC0415

    conf = {
        "spark.driver.memory": "8g",
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
    }
    builder = SparkSession.builder.master(f"local[{cores}]")
    for name, value in conf.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    State(spark)
    at = [f"cast(substring({name}_id, 2) as int) as {name}_idx" for name in ("user", "item")]
    spark.read.parquet(str(folder / "exclude")).selectExpr(
        *at, "1.0D as rating", "current_timestamp() as timestamp"
    ).write.mode("overwrite").parquet(str(folder / "seen"))
    hints = {
        "user_idx": (FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
        "item_idx": (FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
        "rating": (FeatureType.NUMERICAL, FeatureHint.RATING),
        "timestamp": (FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
    }
    schema = FeatureSchema([FeatureInfo(name, kind, hint) for name, (kind, hint) in hints.items()])
    pairs = spark.read.parquet(str(folder / "seen"))
    seen = Dataset(schema, pairs)
    # It must know each user and item, which a pair of each shows; its factors are exchanged for ours.
    few = pairs.dropDuplicates(["user_idx"]).union(pairs.dropDuplicates(["item_idx"])).distinct()
    few.write.mode("overwrite").parquet(str(folder / "few"))
    rank = len(spark.read.parquet(str(folder / "items.parquet")).first()["factors"])
    model = ALSWrap(rank=rank, seed=1)
    model.fit(Dataset(schema, spark.read.parquet(str(folder / "few"))))
    path = str(folder / "their-model")
    model.model.write().overwrite().save(path)
    for source, index, name in (
        ("users", "user_index", "userFactors"),
        ("items.parquet", "item_index", "itemFactors"),
    ):
        factors = spark.read.parquet(str(folder / source)).selectExpr(f"{index} as id", "factors as features")
        factors.write.mode("overwrite").parquet(f"{path}/{name}")
    model.model = ALSModel.load(path)
    start = time.perf_counter()
    model.predict(seen, 10, recs_file_path=str(folder / "theirs"))
    return time.perf_counter() - start


def main() -> None:
    what, folder, cores = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    work = {"recommend": recommend, "fit": fit, "predict": predict}[what]
    print(json.dumps({"seconds": work(folder, cores)}))


if __name__ == "__main__":
    main()
