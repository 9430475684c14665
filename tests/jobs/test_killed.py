"""A stage killed (SIGKILL) at any point, and run again, leaves the tables of a night that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.conftest import ROOT
from tests.shop import RUN_DATE, open_shop, write_conf

pytestmark = pytest.mark.soak

# Runs ingest and clean, and kills its whole process group before or after its n-th write to the lake. Each
# write has a number of its own, since several are under way at once.
DOOMED = """
import itertools, os, signal, sys
from recsys_spark.lake.store import Lake
moment, number, numbers = sys.argv[1], int(sys.argv[2]), itertools.count(1)
def doomed(write):
    def wrapped(*arguments, **named):
        mine = next(numbers)
        if (moment, number) == ("before", mine):
            os.killpg(0, signal.SIGKILL)
        done = write(*arguments, **named)
        if (moment, number) == ("after", mine):
            os.killpg(0, signal.SIGKILL)
        return done
    return wrapped
for name in ("append", "merge", "overwrite_partition"):
    setattr(Lake, name, doomed(getattr(Lake, name)))
from recsys_spark.cli import app
app(["run", "--env", "slice", "--run-date", sys.argv[3], "--to", "clean"], standalone_mode=False)
"""
TABLES = (
    "bronze/interactions",
    "bronze/items",
    "bronze/users",
    "bronze/audiences",
    "silver/interactions",
    "silver/items",
    "silver/users",
    "silver/audiences",
    "silver/quarantine",
)
# Clocks of the runs themselves.
CLOCKS = ("ingested_at",)


def start(conf: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RECSYS_CONF": str(conf)}
    return subprocess.Popen(
        [sys.executable, "-c", DOOMED, *words, RUN_DATE],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def content(lake: Path) -> dict[str, list[str]]:
    """All rows of all tables, in an order of their own."""
    found = {}
    for name in TABLES:
        rows = DeltaTable(str(lake / name)).to_pyarrow_table().to_pylist()
        kept = [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
        found[name] = sorted(json.dumps(row, default=str, sort_keys=True) for row in kept)
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_shop(tmp_path_factory.mktemp("killed") / "shop").folder


@pytest.fixture(scope="module")
def undisturbed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    root = tmp_path_factory.mktemp("undisturbed")
    conf = write_conf(root / "conf", base=ROOT / "conf", shop=shop, root=root)
    assert start(conf, "never", "0").wait() == 0
    return content(root / "lake")


@pytest.fixture
def night(shop: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(conf folder, lake) of a night that is to be killed."""
    return write_conf(tmp_path / "conf", base=ROOT / "conf", shop=shop, root=tmp_path), tmp_path / "lake"


@pytest.mark.parametrize(
    ("moment", "number"),
    [("before", 1), ("after", 2), ("after", 5), ("before", 9), ("after", 9), ("after", 11), ("after", 13)],
)
def test_a_kill_between_two_writes_leaves_nothing_behind_that_a_rerun_does_not_mend(
    night: tuple[Path, Path], undisturbed: dict[str, list[str]], moment: str, number: int
) -> None:
    conf, lake = night
    assert start(conf, moment, str(number)).wait() == -signal.SIGKILL
    assert start(conf, "never", "0").wait() == 0
    assert content(lake) == undisturbed


@pytest.mark.parametrize("table", ["bronze/interactions", "silver/interactions"])
def test_a_kill_between_files_and_commit_leaves_no_row(
    night: tuple[Path, Path], undisturbed: dict[str, list[str]], table: str
) -> None:
    conf, lake = night
    process, folder = start(conf, "never", "0"), lake / table
    while process.poll() is None and not any(folder.rglob("part-*.parquet")):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "_delta_log" / f"{0:020d}.json").exists()
    assert start(conf, "never", "0").wait() == 0
    assert content(lake) == undisturbed
