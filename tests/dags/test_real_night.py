"""The real jobs of a small night on a standalone cluster, against local mode; in `make soak` by Airflow.

In every run the stages are one application, which starts one JVM for all of them. Under Airflow each stage is an
application of its own: nine times a driver and two executors. The two workers run an environment of their own and do not see the checkout, so a path or a module of the
driver that leaks into a task fails here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from test_nightly_run import run_night
from test_policy import STAGES

sys.path.insert(0, str(ROOT))
from tests.shop import DONE, LISTS, RUN_DATE, open_shop, shared_night, write_conf

PYTHON, BIN = f"{ROOT}/.venv/bin/python", f"{ROOT}/.venv/bin"


def told(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def java_options(conf: Path, *sides: str, more: str) -> None:
    """Add to the Java options of the driver, the executors or both."""
    text = conf.read_text(encoding="utf-8")
    for side in sides:
        options = f"spark.{side}.extraJavaOptions"
        assert f"{options} " in text
        text = text.replace(f"{options} ", f"{options} {more} ")
    conf.write_text(text, encoding="utf-8")


def is_written(path: Path, *, within_seconds: float = 60) -> bool:
    """Whether a file that another process is writing is there and has ceased to grow."""
    deadline, size = time.monotonic() + within_seconds, -1
    while time.monotonic() < deadline:
        now = path.stat().st_size if path.exists() else -1
        if now == size > 0:
            return True
        size = now
        time.sleep(2)
    return False


def archive_classes(conf: Path, worker_python: str, package: Path) -> None:
    """Keep the classes that a session loads as one file for the JVMs to come: 27 of them, each starts cold.

    Made by the workers' Spark, whose folder is the only one that both sides see. Where its JARs are the
    driver's own files (links), Java takes the archive for the drivers too; elsewhere these load as ever.
    """
    archive = conf / "classes.jsa"
    first = conf / "first"
    shutil.copytree(conf, first)
    java_options(first / "spark-local.conf", "driver", more=f"-XX:ArchiveClassesAtExit={archive}")
    doctor = [worker_python, "-c", "from recsys_spark.cli import main; main()", "doctor", "--env", "slice"]
    told(doctor, RECSYS_CONF=str(first), PYTHONPATH=str(package), PYSPARK_PYTHON=worker_python)
    if is_written(archive):
        java_options(
            conf / "spark-cluster.conf", "driver", "executor", more=f"-XX:SharedArchiveFile={archive}"
        )


def local_lake(here: Path, shop: Path) -> Path:
    """The lake of local mode's night: of the test run beside this one, or else made here."""
    beside = shared_night()
    if beside is None:
        conf = write_conf(here / "conf", base=ROOT / "conf", shop=shop, root=here)
        night = ["--env", "slice", "--run-date", RUN_DATE, "--to", "publish", "--skip", "evaluate"]
        told([f"{BIN}/recsys", "run", *night], RECSYS_CONF=str(conf))
        return here / "lake"
    deadline = time.monotonic() + 1200
    done = beside / DONE
    while not (done.exists() and done.read_text()):
        assert time.monotonic() < deadline, f"the test run beside this one has made no night in {beside}"
        time.sleep(2)
    assert done.read_text() == "whole"
    return beside / "lake"


@dataclass(frozen=True)
class Prepared:
    """A cluster with a shop that its workers see too, and what each way to run a night there is given."""

    master: str
    shared: Path
    shop: Path
    conf: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("cluster")
    told(["bash", f"{ROOT}/scripts/wheel.sh"])
    master = told([PYTHON, f"{ROOT}/scripts/cluster.py", "up", "--dir", str(folder)])
    yield folder, master
    told([PYTHON, f"{ROOT}/scripts/cluster.py", "down", "--dir", str(folder)])


@pytest.fixture(scope="module")
def prepared(cluster: tuple[Path, str]) -> Prepared:
    folder, master = cluster
    shared = folder / "shared"
    shop = open_shop(shared / "shop").folder
    # With no day that is old enough the night is not judged: a second training, and the longest of its stages.
    unjudged = "\n[evaluation]\nwindow_days = 365\n"
    conf = write_conf(folder / "conf", base=ROOT / "conf", shop=shop, root=shared, extra=unjudged)
    [package] = (ROOT / "dist").glob("*.zip")
    environment = {
        "RECSYS_CONF": str(conf),
        "RECSYS_PYTHON": (folder / "worker-python").read_text().strip(),
        "RECSYS_PY_FILES": str(package),
        "RECSYS_SPARK_CONF": f"{conf}/spark-cluster.conf",
    }
    return Prepared(master, shared, shop, conf, environment)


@pytest.fixture(scope="module")
def local(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return local_lake(tmp_path_factory.mktemp("local"), prepared.shop)


def submit_night(prepared: Prepared) -> None:
    """All stages up to the publication in one application on the cluster."""
    command = [f"{BIN}/spark-submit", "--master", prepared.master]
    command += ["--properties-file", prepared.environment["RECSYS_SPARK_CONF"]]
    command += ["--py-files", prepared.environment["RECSYS_PY_FILES"]]
    command += [f"{ROOT}/tests/dags/whole_night.py", "slice", RUN_DATE]
    told(
        command,
        **prepared.environment,
        PYSPARK_PYTHON=prepared.environment["RECSYS_PYTHON"],
        PYSPARK_DRIVER_PYTHON=PYTHON,
    )


def require_the_same_lists(local: Path, prepared: Prepared) -> None:
    """Of 300 lists all but three the same items in the same order: MLlib's factors differ in their last bits.

    Only slots that are as good as tied may swap places.
    """
    compare = [
        "runs",
        "diff",
        str(local),
        f"{prepared.shared}/lake",
        "--env",
        "slice",
        "--run-date",
        RUN_DATE,
    ]
    said = told([f"{BIN}/recsys", *compare], RECSYS_CONF=str(prepared.conf))
    equal, difference = re.search(
        rf"(\d+) of {LISTS} lists hold the same items in the same order .* in a common slot (\S+)", said
    ).groups()
    assert int(equal) >= LISTS - 3, said
    assert float(difference) < 1e-4, said


def test_the_cluster_gives_the_same_lists_as_local_mode(prepared: Prepared, local: Path) -> None:
    submit_night(prepared)
    require_the_same_lists(local, prepared)


@pytest.mark.soak  # nine applications, each with a driver and two executors of its own
def test_under_airflow_every_stage_succeeds_the_lists_are_announced_and_the_same(
    prepared: Prepared, local: Path, airflow_home: Path
) -> None:
    shutil.rmtree(prepared.shared / "lake", ignore_errors=True)
    package = Path(prepared.environment["RECSYS_PY_FILES"])
    archive_classes(prepared.conf, prepared.environment["RECSYS_PYTHON"], package)
    night = run_night(
        airflow_home,
        home=ROOT,
        env="slice",
        run_date=RUN_DATE,
        AIRFLOW_CONN_SPARK_DEFAULT=json.dumps({"conn_type": "spark", "host": prepared.master}),
        **prepared.environment,
    )
    assert night.states == dict.fromkeys(STAGES, "success"), night.output[-6000:]
    assert list(night.states) == list(STAGES), "each began after the one before it"
    assert night.published == [{"run_date": RUN_DATE}]
    require_the_same_lists(local, prepared)
