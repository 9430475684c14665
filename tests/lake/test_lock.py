"""One writer at a time: two processes and one lake."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys_spark.lake import lock

HOLDER = """
import sys, time
from recsys_spark.lake import lock
with lock.held(sys.argv[1], doing="the night of 2024-06-02"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(lake: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(lake), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_run_leaves_with_a_sentence_that_names_the_first(tmp_path: Path) -> None:
    first = holder(tmp_path, 60)
    try:
        with pytest.raises(lock.BusyError) as busy, lock.held(str(tmp_path)):
            pass
        assert f"the night of 2024-06-02 (process {first.pid}, since " in str(busy.value)
        assert busy.value.exit_code == 1
    finally:
        first.kill()
        first.wait()


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    first = holder(tmp_path, 60)
    first.kill()
    first.wait()
    with lock.held(str(tmp_path)):
        pass


def test_the_second_run_waits_as_long_as_it_may(tmp_path: Path) -> None:
    first = holder(tmp_path, 1.0)
    started = time.monotonic()
    with lock.held(f"file://{tmp_path}", wait_seconds=30):
        assert time.monotonic() - started < 20
        assert first.wait() == 0


def test_storage_that_is_not_of_this_machine_is_not_held() -> None:
    with lock.held("s3a://bucket/lake"), lock.held("s3a://bucket/lake"):
        pass
