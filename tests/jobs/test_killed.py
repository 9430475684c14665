"""A stage killed (SIGKILL) at any point, and run again, leaves the tables of a night that nobody disturbed.

Half of each delivery is in silver already, so that what is killed are merges into rows that are there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.conftest import ROOT
from tests.shop import RUN_DATE, open_shop, write_conf
from tests.tables import content, rows_at

pytestmark = pytest.mark.soak

# Runs a night to its preferences, and kills its whole process group before or after its n-th write to the lake. Each
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
app(["run", "--env", "slice", "--run-date", sys.argv[3], "--to", "preferences"], standalone_mode=False)
"""
TABLES = (
    "bronze/interactions",
    "bronze/items",
    "bronze/users",
    "bronze/audiences",
    "bronze/outcomes",
    "silver/interactions",
    "silver/items",
    "silver/users",
    "silver/audiences",
    "silver/outcomes",
    "silver/quarantine",
    "silver/excluded_users",
    "silver/preferences",
)
# Some of the shop's users count as bots, so that there is something in each table.
BOTS = "\n[bots]\nmax_events_per_day = 3\n"
NIGHT_BEFORE = "2024-06-01"


def start(conf: Path, *words: str, run_date: str = RUN_DATE) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RECSYS_CONF": str(conf)}
    return subprocess.Popen(
        [sys.executable, "-c", DOOMED, *words, run_date],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def content_of(lake: Path) -> dict[str, list[str]]:
    """All rows of all tables, and what the night counted."""
    return {name: content(rows_at(lake / name)) for name in TABLES} | {"counts": counts(lake)}


def counts(lake: Path) -> list[str]:
    """What the night counted: sums in `ingest` and `clean`, the last figure in `preferences`."""
    summed: dict[str, float] = defaultdict(float)
    last: dict[str, float] = {}
    for row in sorted(rows_at(lake / "ops" / "metrics"), key=lambda row: row["recorded_at"]):
        name = f"{row['stage']} {row['metric']} {row['label']}"
        if str(row["run_date"]) != RUN_DATE or not row["label"] or row["metric"] == "wrote":
            continue
        if row["stage"] == "clean" or row["metric"] in {"rows_read", "rows_ingested", "files_ingested"}:
            summed[name] += row["value"]
        if row["stage"] == "preferences":
            last[name] = row["value"]
    return sorted(f"{name} {value}" for name, value in (*summed.items(), *last.items()))


@dataclass(frozen=True)
class Halfway:
    """A shop whose deliveries are whole, and a lake that has taken the first half of each."""

    shop: Path
    lake: Path

    def conf_in(self, root: Path) -> Path:
        """The conf folder of a night in `root`, which gets a lake of its own."""
        shutil.copytree(self.lake, root / "lake")
        return write_conf(root / "conf", base=ROOT / "conf", shop=self.shop, root=root, extra=BOTS)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Halfway:
    root = tmp_path_factory.mktemp("halfway")
    shop = open_shop(root / "shop").folder
    whole = {path: path.read_bytes() for path in shop.iterdir()}
    for path, delivered in whole.items():
        if path.name == "items.jsonl":  # all of them, for events of unknown items stop a night
            path.write_bytes(delivered.replace(b"maker 0", b"nobody"))
        else:
            lines = delivered.splitlines(keepends=True)
            path.write_bytes(b"".join(lines[: len(lines) // 2]))
    conf = write_conf(root / "conf", base=ROOT / "conf", shop=shop, root=root, extra=BOTS)
    assert start(conf, "never", "0", run_date=NIGHT_BEFORE).wait() == 0
    for path, delivered in whole.items():
        path.write_bytes(delivered)
    return Halfway(shop, root / "lake")


@pytest.fixture(scope="module")
def undisturbed(halfway: Halfway, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    root = tmp_path_factory.mktemp("undisturbed")
    conf = halfway.conf_in(root)
    assert start(conf, "never", "0").wait() == 0
    whole = content_of(root / "lake")
    assert all(whole.values())
    for name, rows in content_of(halfway.lake).items():
        assert len(whole[name]) > len(rows) or name in {"silver/items", "counts"}
    return whole


@pytest.fixture
def night(halfway: Halfway, tmp_path: Path) -> tuple[Path, Path]:
    """(conf folder, lake) of a night that is to be killed."""
    return halfway.conf_in(tmp_path), tmp_path / "lake"


# In order: seven commits to bronze, the run, ingest's figures; the gate's results, six merges side by side
# (12 to 17), the mark; clean's figures; excluded users, preferences, their gate's results and figures.
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("before", 1),
        ("after", 4),
        ("after", 8),
        ("before", 12),
        ("after", 13),
        ("after", 16),
        ("after", 17),
        ("after", 19),
        ("before", 21),
    ],
)
def test_a_kill_between_two_writes_leaves_nothing_behind_that_a_rerun_does_not_mend(
    night: tuple[Path, Path], undisturbed: dict[str, list[str]], moment: str, number: int
) -> None:
    conf, lake = night
    assert start(conf, moment, str(number)).wait() == -signal.SIGKILL
    assert start(conf, "never", "0").wait() == 0
    assert content_of(lake) == undisturbed


@pytest.mark.parametrize("table", ["bronze/interactions", "silver/interactions", "silver/preferences"])
def test_a_kill_between_files_and_commit_leaves_no_row(
    night: tuple[Path, Path], undisturbed: dict[str, list[str]], table: str
) -> None:
    conf, lake = night
    folder = lake / table
    before, version = set(folder.rglob("part-*.parquet")), DeltaTable(str(folder)).version()
    process = start(conf, "never", "0")
    while process.poll() is None and set(folder.rglob("part-*.parquet")) <= before:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert DeltaTable(str(folder)).version() == version
    assert start(conf, "never", "0").wait() == 0
    assert content_of(lake) == undisturbed
