"""The same factors whatever the number of cores."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import recsys_spark
from recsys_spark.models.als.fit import fit_als
from recsys_spark.runtime.rows import frame_of
from tests.models.als.test_fit import PAIRS, TRAINERS, als

PROGRAM = """
import sys
from pathlib import Path
from recsys_spark.runtime.session import properties, start_session
from tests.models.als.test_cores import digests
from tests.shop import FEW_ROWS, QUICK_JAVA
conf, master, folder = sys.argv[1:]
few = dict(line.split() for line in FEW_ROWS.strip().splitlines())
given = {**properties(Path(conf)), "spark.master": master, "spark.local.dir": folder, **few,
         "spark.sql.shuffle.partitions": "5", "spark.driver.memory": "512m", "spark.driver.extraJavaOptions": QUICK_JAVA}
spark = start_session("cores", given)
spark.sparkContext.setCheckpointDir(folder)
assert spark.sparkContext.master == master
print(*digests(spark))
spark.stop()
"""


def digests(spark: SparkSession) -> list[str]:
    """Of each trainer's factors, bit by bit; the cg trainer's by tasks, not by the driver."""
    draw = random.Random(8)
    cells = sorted({(draw.randrange(60), draw.randrange(40)) for _ in range(900)})
    rows = [(f"u{u:02d}", f"i{i:02d}", draw.choice([0.3, 1.0, 2.7])) for u, i in cells]
    hashes = []
    for trainer in TRAINERS:
        # As many parts as cores: what a night's frames come in.
        pairs = frame_of(spark, rows, PAIRS).repartition(spark.sparkContext.defaultParallelism)
        factors = fit_als(pairs, als(trainer=trainer, iterations=1, driver_pairs=0), is_measured=False)
        content = [sorted(rows.collect()) for rows in (factors.users, factors.items)]
        hashes.append(hashlib.sha256(repr(content).encode()).hexdigest()[:16])
    return hashes


@pytest.mark.soak  # a session of its own; in every run test_fit.py holds both trainers to the order of rows
def test_both_trainers_give_the_same_bits_on_another_number_of_cores(
    spark: SparkSession, tmp_path: Path
) -> None:
    root = Path(recsys_spark.__file__).parents[1]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    cores = 1 if spark.sparkContext.defaultParallelism > 1 else 2
    done = subprocess.run(
        [
            sys.executable,
            str(program),
            str(root / "conf" / "spark-local.conf"),
            f"local[{cores}]",
            str(tmp_path / "scratch"),
        ],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.split() == digests(spark)
