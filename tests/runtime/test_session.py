"""What every session is given."""

from __future__ import annotations

import os
import subprocess
import sys

from recsys_spark.runtime.session import ALWAYS


def test_every_setting_has_a_name_that_spark_submit_does_not_ignore() -> None:
    assert [name for name in ALWAYS if not name.startswith("spark.")] == []


def test_instants_are_shown_in_utc_wherever_the_machine_stands() -> None:
    code = (
        "from datetime import datetime\n"
        "from recsys_spark.runtime.session import take_utc\n"
        "take_utc()\n"
        "print(datetime.fromtimestamp(0), datetime(2024, 6, 2).timestamp())"
    )
    env = {**os.environ, "TZ": "Pacific/Kiritimati"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "1970-01-01 00:00:00 1717286400.0\n"
