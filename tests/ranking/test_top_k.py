"""top_k on frames against a brute force in plain Python; item files on executors without a shared folder."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.errors import PythonException
from pyspark.sql import functions as F

import recsys_spark
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.ranking.batches import gathered
from recsys_spark.ranking.kernel import Csr, ItemParts
from recsys_spark.ranking.kernel_shards import arranged
from recsys_spark.ranking.shared_items import _bytes, shard_bytes, share_items
from recsys_spark.ranking.top_k import top_k

USERS = "user_id string, factors array<double>"
ITEMS = "item_id string, factors array<float>"
PAIRS = "user_id string, item_id string"


def brute_force(users, items, k, excluded=(), candidates=None):
    """{user_id: [(item_id, score), …]}: score everything, sort everything."""
    excluded, best = set(excluded), {}
    for user_id, x in users:
        scored = []
        for item_id, y in items:
            if (user_id, item_id) not in excluded and (candidates is None or item_id in candidates):
                score = 0.0
                for a, b in zip(x, y, strict=True):
                    score += a * float(np.float32(b))
                scored.append((item_id, score))
        if scored:
            best[user_id] = sorted(scored, key=lambda pair: (-pair[1], pair[0].encode()))[:k]
    return best


def lists(result):
    """{user_id: [(item_id, score), …]}, ranks checked to run from 1."""
    assert result.dtypes == [
        ("user_id", "string"),
        ("item_id", "string"),
        ("score", "double"),
        ("rank", "int"),
    ]
    best = {}
    for row in sorted(result.collect(), key=lambda row: (row.user_id, row.rank)):
        places = best.setdefault(row.user_id, [])
        places.append((row.item_id, row.score))
        assert row.rank == len(places)
    return best


@pytest.fixture(scope="module")
def rows():
    """60 users, 80 items whose ids do not sort as numbers do, many equal scores, a few seen pairs each."""
    rng = np.random.default_rng(1)
    users = [(f"u{i}", [float(v) for v in rng.integers(-2, 3, 4)]) for i in range(60)]
    items = [(f"i{i}é" if i % 7 else f"i{i}", [float(v) for v in rng.integers(-2, 3, 4)]) for i in range(80)]
    seen = [(f"u{u}", items[i][0]) for u, i in rng.integers(0, [60, 80], (400, 2))]
    return users, items, [*seen, ("u3", "unknown item"), ("unknown user", items[0][0]), seen[0]]


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_lists_equal_the_brute_force_for_any_number_of_partitions(frame, rows, partitions):
    users, items, seen = rows
    result = top_k(
        frame(USERS, users, partitions),
        frame(ITEMS, items, partitions),
        k=5,
        exclude=frame(PAIRS, seen, partitions),
    )
    assert lists(result) == brute_force(users, items, 5, seen)


def test_only_candidates_come_back_and_the_rest_is_not_even_shared(frame, rows, monkeypatch):
    users, items, seen = rows
    chosen = {items[3][0], items[70][0], items[41][0], "unknown item"}
    shared = []
    monkeypatch.setattr(
        "recsys_spark.ranking.top_k.share_items",
        lambda *args, **kwargs: shared.append(share_items(*args, **kwargs)) or shared[-1],
    )
    candidates = frame("item_id string", [(item,) for item in [*chosen, *chosen]])
    result = top_k(
        frame(USERS, users), frame(ITEMS, items), k=5, exclude=frame(PAIRS, seen), candidates=candidates
    )
    assert lists(result) == brute_force(users, items, 5, seen, chosen)
    assert shared[0].n_items == 3


def test_a_user_who_has_seen_everything_has_no_row_and_others_are_not_touched(frame, rows):
    users, items, _ = rows
    seen = [("u0", item_id) for item_id, _ in items] + [("u1", item_id) for item_id, _ in items[2:]]
    best = lists(top_k(frame(USERS, users), frame(ITEMS, items), k=3, exclude=frame(PAIRS, seen)))
    assert "u0" not in best
    assert {item for item, _ in best["u1"]} == {items[0][0], items[1][0]}
    assert best == brute_force(users, items, 3, seen)


def test_more_places_than_items_give_all_items(frame, rows):
    users, items, _ = rows
    assert lists(top_k(frame(USERS, users[:3]), frame(ITEMS, items[:4]), k=10)) == brute_force(
        users[:3], items[:4], 10
    )


def test_no_users_or_no_candidates_give_an_empty_frame(frame, rows):
    users, items, _ = rows
    assert lists(top_k(frame(USERS, []), frame(ITEMS, items), k=2)) == {}
    nothing = frame("item_id string", [("unknown item",)])
    assert lists(top_k(frame(USERS, users), frame(ITEMS, items), k=2, candidates=nothing)) == {}


def test_shards_and_caps_give_what_walking_the_whole_ranking_gives(frame, rows, spark, monkeypatch):
    users, items, seen = rows
    kinds = {item: None if n % 9 == 0 else f"kind {n % 4}" for n, (item, _) in enumerate(items)}
    capped = frame(f"{ITEMS}, kind string", [(*item, kinds[item[0]]) for item in items])
    shared = []
    monkeypatch.setattr("recsys_spark.ranking.shared_items.arranged", partial(arranged, cuts=(20, 41)))
    monkeypatch.setattr(
        "recsys_spark.ranking.top_k.share_items",
        lambda *args, **kwargs: shared.append(share_items(*args, **kwargs)) or shared[-1],
    )
    expected = {}
    for user, ranking in brute_force(users, items, 80, seen).items():
        kept = []
        for item, score in ranking:
            count = sum(kinds[other] == kinds[item] for other, _ in kept)
            if len(kept) < 7 and (kinds[item] is None or count < 2):
                kept.append((item, score))
        expected[user] = kept
    assert (
        lists(top_k(frame(USERS, users), capped, k=7, exclude=frame(PAIRS, seen), caps={"kind": 2}))
        == expected
    )
    assert shared[0].outline.n_shards == 3
    with pytest.raises(ConfigError, match="cap kind = 0, expected 1 or more"):
        top_k(frame(USERS, users), capped, k=7, caps={"kind": 0})
    with pytest.raises(ConfigError, match=r"items has no column kinds, .*Did you mean kind\?"):
        top_k(frame(USERS, users), capped, k=7, caps={"kinds": 1})


def test_small_batches_are_ranked_together_and_stay_in_order():
    sizes = [3, 0, 4, 5, 1]
    starts = np.cumsum([0, *sizes])
    batches = [
        pa.RecordBatch.from_pydict({"n": list(range(start, start + size))})
        for start, size in zip(starts, sizes, strict=False)
    ]
    joined = list(gathered(batches, 6))
    assert [batch.num_rows for batch in joined] == [7, 6]
    assert [n for batch in joined for n in batch.column("n").to_pylist()] == list(range(13))
    assert list(gathered([], 6)) == []


def test_a_share_of_an_executors_memory_in_bytes(spark):
    assert shard_bytes(spark, 0.25) == 512 << 20  # the tests' driver has 2g
    assert [_bytes(size) for size in ("1g", "512m", "300", "2gb", "1024k")] == [
        1 << 30, 512 << 20, 300 << 20, 2 << 30, 1 << 20,
    ]  # fmt: skip


def test_many_batches_of_a_partition_give_the_same_lists(spark, frame, rows):
    users, items, seen = rows
    records = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "4")
    try:
        result = lists(top_k(frame(USERS, users), frame(ITEMS, items), k=5, exclude=frame(PAIRS, seen)))
        with pytest.raises(PythonException, match="user 'u7' comes twice"):
            top_k(frame(USERS, [*users, *[users[7]] * 5]), frame(ITEMS, items), k=2).collect()
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", records)
    assert result == brute_force(users, items, 5, seen)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([("a", [1.0, 2.0]), ("b", [1.0])], "item 'b' does not have 2 factors as item 'a'"),
        ([("a", [1.0]), ("a", [2.0])], "item 'a' comes twice"),
        ([("a", [1.0]), ("b", None)], "item 'b' has no factors"),
        ([("a", [1.0]), (None, [1.0])], "item None has no id"),
        ([("a", [1.0]), ("b", [None])], "item 'b' holds null, NaN or infinity"),
        ([("a", [float("nan")])], "item 'a' holds null, NaN or infinity"),
        ([("a", [1e300])], "item 'a' holds a number beyond float32"),
    ],
)
def test_bad_items_are_refused_by_name(frame, bad, message):
    with pytest.raises(InputError, match=message):
        top_k(frame(USERS, [("u", [1.0])]), frame("item_id string, factors array<double>", bad), k=1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([("a", [1.0]), ("a", [1.0])], "user 'a' comes twice"),
        ([("a", [1.0, 2.0])], "user 'a' has 2 factors, the items have 1"),
        ([("a", None)], "user 'a' has no factors"),
        ([(None, [1.0])], "user None has no id"),
        ([("a", [float("inf")])], "user 'a' holds null, NaN or infinity"),
    ],
)
def test_bad_users_are_refused_by_name(frame, bad, message):
    with pytest.raises(PythonException, match=message):
        top_k(frame(USERS, bad), frame(ITEMS, [("i", [1.0])]), k=1).collect()


def test_wrong_use_is_refused_before_any_work(frame):
    users, items = frame(USERS, [("u", [1.0])]), frame(ITEMS, [("i", [1.0])])
    with pytest.raises(ConfigError, match="k=0"):
        top_k(users, items, k=0)
    with pytest.raises(ConfigError, match=r"items has no column item_id, .*Did you mean item_ids\?"):
        top_k(users, items.withColumnRenamed("item_id", "item_ids"), k=1)
    with pytest.raises(ConfigError, match=r"users\.user_id is int, expected string"):
        top_k(users.withColumn("user_id", F.lit(1)), items, k=1)
    with pytest.raises(
        ConfigError, match=r"items\.factors is array<int>, expected array<float> or array<double>"
    ):
        top_k(users, items.withColumn("factors", F.array(F.lit(1))), k=1)
    with pytest.raises(ConfigError, match="exclude has no column user_id"):
        top_k(users, items, k=1, exclude=items)


@pytest.fixture
def parts():
    dense = np.arange(6, dtype=np.float32).reshape(3, 2)
    sparse = Csr(np.array([0, 1, 1, 2]), np.array([4, 0], np.int32), np.array([0.5, 2.0], np.float32))
    return ItemParts(dense, sparse, np.array([[True, False, True]]))


def test_shared_items_come_back_as_they_were_on_executor_and_driver(spark, parts):
    shared = share_items(spark, parts, pa.array(["a", "b", "c"]))
    assert len(pickle.dumps(shared)) < 1_000

    def seen_by_the_task(_):
        loaded = shared.load()
        shard = loaded.shards.load(0)
        mapped = isinstance(shard.dense, np.memmap) and shared.load() is loaded
        order = np.argsort(shard.item)
        bits = np.unpackbits(shard.allowed, axis=1, count=3, bitorder="little")[:, order]
        dense, terms = shard.dense[order].tolist(), shard.sparse.take(order).values.tolist()
        yield loaded.ids.to_pylist(), dense, terms, bits.tolist(), mapped

    expected = (["a", "b", "c"], [[0, 1], [2, 3], [4, 5]], [0.5, 2.0], [[1, 0, 1]], True)
    assert (
        spark.sparkContext.parallelize([0, 1], 2).mapPartitions(seen_by_the_task).collect() == [expected] * 2
    )
    shard = shared.load().shards.load(0)
    np.testing.assert_array_equal(shard.norms, parts.norms[shard.item])


def test_two_shares_do_not_meet_and_a_released_one_says_so(spark, parts):
    first = share_items(spark, parts, np.array(["a", "b", "c"]))
    second = share_items(spark, ItemParts(parts.dense * 2), np.array(["x", "y", "z"]))
    assert second.load().ids.to_pylist() == ["x", "y", "z"]
    dense = [shared.load().shards.load(0).dense for shared in (first, second)]
    np.testing.assert_array_equal(dense[1], 2 * dense[0])
    first.release()
    assert spark.sparkContext.parallelize([1, 2]).map(lambda v: v + 1).collect() == [2, 3]
    with pytest.raises(RuntimeError, match="released before its last use"):
        first.load()
    assert second.load().shards.load(0).dense.shape == (3, 2)


def test_share_items_refuses_what_does_not_fit(spark, parts):
    with pytest.raises(ValueError, match="2 ids for 3 items"):
        share_items(spark, parts, ["a", "b"])
    with pytest.raises(ValueError, match=r"items\.dense row 1 holds NaN"):
        share_items(spark, ItemParts(np.array([[0], [np.nan]], np.float32)), ["a", "b"])


PROGRAM = """
import json, sys
import numpy as np
from recsys_spark.lake.rows import frame_of
from recsys_spark.lake.session import start_session
from recsys_spark.ranking.shared_items import share_items
from recsys_spark.ranking.kernel import ItemParts
from recsys_spark.ranking.top_k import top_k
if __name__ == "__main__":
    conf = {"spark.master": sys.argv[1], "spark.executor.memory": "512m", "spark.executor.cores": "1",
            "spark.driver.memory": "512m", "spark.local.dir": sys.argv[2], "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "4"}
    spark = start_session("two workers", conf)
    rng = np.random.default_rng(1)
    draw = lambda kind, n: [(f"{kind}{i}", [float(v) for v in rng.integers(-2, 3, 4)]) for i in range(n)]
    users = frame_of(spark, draw("u", 60), "user_id string, factors array<double>").repartition(4)
    items = frame_of(spark, draw("i", 80), "item_id string, factors array<float>")
    old = share_items(spark, ItemParts(np.ones((2, 2), np.float32)), ["a", "b"])
    old.release()  # executors that first start now are still offered its files
    rows = [list(row) for row in top_k(users, items, k=5).orderBy("user_id", "rank").collect()]
    def place(_):
        import os
        yield os.getcwd()
    places = spark.sparkContext.parallelize(range(8), 8).mapPartitions(place).distinct().collect()
    print(json.dumps({"rows": rows, "places": places}))
    spark.stop()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone master and two workers of one core, each in a folder of its own."""
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(Path(recsys_spark.__file__).parents[1]),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
    }
    spark_class = str(Path(sys.executable).parent / "spark-class")
    port = 20_000 + os.getpid() % 20_000
    url = f"spark://127.0.0.1:{port}"

    def start(*command: str) -> subprocess.Popen:
        log = (tmp_path / f"{len(processes)}.log").open("w")
        return subprocess.Popen(
            [spark_class, *command], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )

    processes: list[subprocess.Popen] = []
    deploy = "org.apache.spark.deploy"
    processes.append(
        start(
            f"{deploy}.master.Master",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--webui-port",
            str(port + 1),
        )
    )
    for worker in ("one", "two"):
        folder = tmp_path / worker
        processes.append(
            start(f"{deploy}.worker.Worker", url, "--cores", "1", "--memory", "600m", "--work-dir", str(folder),
                  "--host", "127.0.0.1", "--webui-port", str(port + 2 + len(processes)))
        )  # fmt: skip
    time.sleep(5)
    yield url
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=30)


@pytest.mark.soak  # tests/dags/test_real_night.py ranks on two such workers in every run
def test_two_workers_that_share_no_folder_with_the_driver_give_the_same_lists(cluster, tmp_path):
    program = tmp_path / "driver.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(recsys_spark.__file__).parents[1])}
    answers = []
    for master in (cluster, "local[1]"):
        done = subprocess.run(
            [sys.executable, str(program), master, str(tmp_path / "driver")],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0]["rows"] == answers[1]["rows"]
    assert len(answers[0]["rows"]) == 60 * 5
    assert {Path(place).relative_to(tmp_path).parts[0] for place in answers[0]["places"]} == {"one", "two"}
