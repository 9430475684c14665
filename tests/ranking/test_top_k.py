"""top_k on frames against a brute force in plain Python; item files on executors without a shared folder."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark import SparkFiles
from pyspark.errors import PythonException
from pyspark.sql import functions as F

import recsys_spark
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.ranking.kernel.select import Csr, ItemParts
from recsys_spark.ranking.kernel.shards import arranged
from recsys_spark.ranking.shared_items import memory_bytes, shard_bytes, share_items
from recsys_spark.ranking.top_k import ranking_task, release, top_k
from recsys_spark.runtime.batches import gathered
from tests.shop import QUICK_JAVA

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from cluster import can_hide, hidden_from

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
    """Of the frames that are read, and of the users while they are ranked."""
    users, items, seen = rows
    result = top_k(
        frame(USERS, users, partitions),
        frame(ITEMS, items, partitions),
        k=5,
        exclude=frame(PAIRS, seen, partitions),
        partitions=partitions,
    )
    plan = result._jdf.queryExecution().optimizedPlan().toString()
    assert re.findall(r"RepartitionByExpression \[user_id#\d+\], (\d+)", plan) == [str(partitions)]
    assert lists(result) == brute_force(users, items, 5, seen)


def test_partitions_and_shards_change_no_bit_of_normal_factors(frame, monkeypatch):
    """Scores whose float sums depend on their order; every other item twice, for ties."""
    rng = np.random.default_rng(2)
    users = [(f"u{i}", rng.standard_normal(33).tolist()) for i in range(40)]
    vectors = rng.standard_normal((200, 33)).astype(np.float32).tolist()
    items = [(f"i{i}", vectors[i // 2]) for i in range(400)]
    seen = [(f"u{u}", f"i{i}") for u in range(40) for i in rng.integers(0, 400, u * 8)]
    expected = brute_force(users, items, 9, seen)
    shared = []
    monkeypatch.setattr(
        "recsys_spark.ranking.top_k.share_items",
        lambda *args, **kwargs: shared.append(share_items(*args, **kwargs)) or shared[-1],
    )
    for partitions, share, shards in ((1, 0.25, 1), (2, 1e-9, 7), (7, 1.8e-5, 3)):
        result = top_k(
            frame(USERS, users),
            frame(ITEMS, items),
            k=9,
            exclude=frame(PAIRS, seen),
            partitions=partitions,
            max_item_share=share,
        )
        assert shared[-1].outline.n_shards == shards
        assert lists(result) == expected


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


def test_excluded_pairs_of_other_items_than_the_candidates_are_not_shuffled(frame, rows):
    users, items, seen = rows
    chosen = frame("item_id string", [(items[3][0],), (items[70][0],)])
    narrowed = {}
    for name, candidates in (("all", None), ("few", chosen)):
        result = top_k(
            frame(USERS, users), frame(ITEMS, items), k=5, exclude=frame(PAIRS, seen), candidates=candidates
        )
        plan = result._jdf.queryExecution().optimizedPlan().toString()
        narrowed[name] = "Join LeftSemi" in plan.partition("Aggregate [user_id")[2]
    assert narrowed == {"all": False, "few": True}


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


def test_labels_may_be_called_anything_but_the_items_own_columns(frame, rows):
    users, items, _ = rows
    names = ("a/b", "c#1", "d.e", "f`g", "%41")
    label = {item: str(n % 3) for n, (item, _) in enumerate(items)}
    schema = ITEMS + "".join(f", `{name.replace('`', '``')}` string" for name in names)
    labelled = frame(schema, [(item, vector, *[label[item]] * len(names)) for item, vector in items])
    found = lists(top_k(frame(USERS, users[:5]), labelled, k=5, caps=dict.fromkeys(names, 1)))
    for user, whole in brute_force(users[:5], items, len(items)).items():
        firsts = {}
        for item, score in whole:
            firsts.setdefault(label[item], (item, score))
        assert found[user] == list(firsts.values())
    for name in ("item_id", "factors"):
        with pytest.raises(ConfigError, match=f"cap by {name}, expected a label"):
            top_k(frame(USERS, users), frame(ITEMS, items), k=5, caps={name: 1})


def test_more_places_than_any_catalogue_has_cost_no_memory(frame, rows):
    users, items, _ = rows
    found = lists(top_k(frame(USERS, users), frame(ITEMS, items), k=2**31))
    assert found == brute_force(users, items, len(items))


def test_a_released_result_leaves_nothing_on_the_drivers_disk(frame, rows):
    def files():
        folders = (Path(tempfile.gettempdir()), Path(SparkFiles.getRootDirectory()))
        found = [path for folder in folders for path in folder.glob("recsys-items-*")]
        inside = [file for path in found if path.is_dir() for file in path.iterdir()]
        return {path: path.stat().st_size for path in (*found, *inside) if path.is_file()}

    users, items, _ = rows
    before = files()
    ranked = top_k(frame(USERS, users), frame(ITEMS, items), k=2)
    others = top_k(frame(USERS, users), frame(ITEMS, items), k=3)
    assert lists(ranked) == brute_force(users, items, 2)
    assert sum(files().values()) > sum(before.values())
    release(ranked)
    release(others)
    assert sum(files().values()) == sum(before.values())
    release(ranked)  # does nothing
    with pytest.raises(ConfigError, match="not one that top_k returned"):
        release(ranked.limit(1))


def test_a_task_takes_no_more_memory_for_more_users_nor_much_for_a_long_history(spark, monkeypatch):
    """The peak of numpy's and Arrow's memory while a task ranks, batch by batch."""
    monkeypatch.setattr("recsys_spark.ranking.top_k.AT_ONCE", 128)
    rng = np.random.default_rng(3)
    ids = pa.array(np.char.mod("i%05d", np.arange(60_000)))
    shared = share_items(spark, ItemParts(rng.standard_normal((60_000, 4)).astype(np.float32)), ids)

    def batch(start, longest):
        offsets = np.cumsum([0, *(longest if row == 7 else 5 for row in range(128))])
        columns = {
            "user_id": pa.array(np.char.mod("u%07d", np.arange(start, start + 128))),
            "factors": pa.array(list(rng.standard_normal((128, 4)))),
            "excluded": pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()), pa.array(np.arange(offsets[-1], dtype=np.int32) % 60_000)
            ),
        }
        return pa.RecordBatch.from_pydict(columns)

    def peak(n, longest=5):
        batches = [batch(128 * number, longest) for number in range(n)]
        before, arrow, places = pa.total_allocated_bytes(), 0, 0
        tracemalloc.start()
        for ranked in ranking_task(shared, 5, {})(batches):
            arrow = max(arrow, pa.total_allocated_bytes() - before)
            places += ranked.num_rows
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert places == 128 * n * 5
        return arrow + taken

    peak(1)  # what is made once
    few = peak(2)
    assert peak(12) < 1.1 * few
    assert (
        peak(2, longest=50_000) < few + 60 * 50_000
    )  # bytes an entry: 128 rows as long have 128 times as many
    shared.release()


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
    assert [memory_bytes(size) for size in ("1g", "512m", "300", "2gb", "1024k")] == [
        1 << 30, 512 << 20, 300 << 20, 2 << 30, 1 << 20,
    ]  # fmt: skip


def test_many_batches_of_a_partition_and_large_texts_give_the_same_lists(spark, frame, rows):
    users, items, seen = rows
    spark.conf.set("spark.sql.execution.arrow.useLargeVarTypes", "true")
    records = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "4")
    try:
        result = lists(top_k(frame(USERS, users), frame(ITEMS, items), k=5, exclude=frame(PAIRS, seen)))
        with pytest.raises(PythonException, match="user 'u7' comes twice"):
            top_k(frame(USERS, [*users, *[users[7]] * 5]), frame(ITEMS, items), k=2).collect()
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", records)
        spark.conf.unset("spark.sql.execution.arrow.useLargeVarTypes")
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
        ([(None, [1.0]), ("a", [1.0]), ("a", [1.0])], "user None has no id"),
        ([("b", [1.0]), ("a", [1e308])], "user 'a' has factors whose scores may overflow float64"),
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


def test_a_worker_keeps_one_catalogues_shard_and_what_was_made_of_it(spark, parts):
    first, second = (share_items(spark, parts, np.array(["a", "b", "c"])) for _ in range(2))
    mapped = first.load()
    shard = mapped.shards.load(0)
    assert mapped.held.last is shard
    second.load()
    assert mapped.held.last is None
    np.testing.assert_array_equal(mapped.shards.load(0).dense, shard.dense)


def test_share_items_refuses_what_does_not_fit(spark, parts):
    with pytest.raises(ValueError, match="2 ids for 3 items"):
        share_items(spark, parts, ["a", "b"])
    with pytest.raises(ValueError, match=r"items\.dense row 1 holds NaN"):
        share_items(spark, ItemParts(np.array([[0], [np.nan]], np.float32)), ["a", "b"])


PROGRAM = """
import json, os, sys
import numpy as np
from recsys_spark.runtime.rows import frame_of
from recsys_spark.runtime.session import start_session
from recsys_spark.ranking.shared_items import share_items
from recsys_spark.ranking.kernel.select import ItemParts
from recsys_spark.ranking.top_k import top_k
if __name__ == "__main__":
    conf = {"spark.master": sys.argv[1], "spark.executor.memory": "512m", "spark.executor.cores": "1",
            "spark.driver.memory": "512m", "spark.local.dir": sys.argv[2], "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "4", "spark.cores.max": "2",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.driver.extraJavaOptions": sys.argv[3], "spark.executor.extraJavaOptions": sys.argv[3]}
    spark = start_session("two workers", conf)
    users, items, seen = ([tuple(row) for row in rows] for rows in json.load(sys.stdin))
    users = frame_of(spark, users, "user_id string, factors array<double>").repartition(4)
    items = frame_of(spark, items, "item_id string, factors array<float>, kind string")
    seen = frame_of(spark, seen, "user_id string, item_id string")
    old = share_items(spark, ItemParts(np.ones((2, 2), np.float32)), ["a", "b"])
    old.release()  # executors that first start now are still offered its files
    ranked = top_k(users, items, k=7, exclude=seen, caps={"kind": 4})
    rows = [list(row) for row in ranked.collect()]
    def place(_):
        yield os.getcwd()
    places = spark.sparkContext.parallelize(range(8), 8).mapPartitions(place).distinct().collect()
    print(json.dumps({"rows": sorted(rows, key=lambda row: (row[0], row[3])), "places": places}))
    spark.stop()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone master and two workers of one core, each in a folder of its own.

    Where there are mount namespaces they do not see the driver's.
    """
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(Path(recsys_spark.__file__).parents[1]),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": QUICK_JAVA,
    }
    spark_class = str(Path(sys.executable).parent / "spark-class")
    driver = tmp_path / "driver"
    driver.mkdir()
    processes: list[subprocess.Popen] = []

    def start(name: str, *command: str) -> None:
        log = (tmp_path / f"{name}.log").open("w")
        daemon = [spark_class, f"org.apache.spark.deploy.{command[0]}", *command[1:], "--host", "127.0.0.1"]
        daemon += ["--port", "0", "--webui-port", "0"]
        if can_hide():
            daemon = hidden_from(daemon, [driver])
        processes.append(subprocess.Popen(daemon, env=environment, cwd=tmp_path, stdout=log, stderr=log))

    def said(name: str, pattern: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := re.search(pattern, (tmp_path / f"{name}.log").read_text()):
                return found[1]
            time.sleep(0.1)
        raise AssertionError((tmp_path / f"{name}.log").read_text()[-3_000:])

    try:
        start("master", "master.Master")
        url = said("master", r"Starting Spark master at (spark://\S+)")
        for worker in ("one", "two"):
            folder = str(tmp_path / worker)
            start(worker, "worker.Worker", url, "--cores", "1", "--memory", "600m", "--work-dir", folder)
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


@pytest.mark.soak  # half a minute; tests/dags/test_real_night.py ranks on two such workers in every run
def test_two_workers_that_share_no_folder_with_the_driver_give_the_lists_of_local_mode(
    cluster, tmp_path, frame
):
    """Normal factors, every third item twice for ties, uneven histories, caps: not a bit of a score differs."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((300, 17)).astype(np.float32).tolist()
    users = [(f"u{i}", rng.standard_normal(17).tolist()) for i in range(60)]
    items = [(f"i{i}", vectors[i - (i % 3 == 1)], f"kind {i % 3}") for i in range(300)]
    seen = [(f"u{u}", f"i{i}") for u in range(60) for i in rng.integers(0, 300, u * 4)]
    program = tmp_path / "driver.py"
    program.write_text(PROGRAM)
    driver = str(tmp_path / "driver")
    package = str(Path(recsys_spark.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "TMPDIR": driver}
    done = subprocess.run(
        [sys.executable, str(program), cluster, driver, QUICK_JAVA],
        input=json.dumps([users, items, seen]),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    ranked = top_k(
        frame(USERS, users),
        frame(f"{ITEMS}, kind string", items),
        k=7,
        exclude=frame(PAIRS, seen),
        caps={"kind": 4},
    )
    rows = sorted(([*row] for row in ranked.collect()), key=lambda row: (row[0], row[3]))
    assert answer["rows"] == rows
    assert len(rows) == 60 * 7
    assert {Path(place).relative_to(tmp_path).parts[0] for place in answer["places"]} == {"one", "two"}
