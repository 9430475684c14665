"""What every session is given."""

from __future__ import annotations

from recsys_spark.runtime.session import ALWAYS


def test_every_setting_has_a_name_that_spark_submit_does_not_ignore() -> None:
    assert [name for name in ALWAYS if not name.startswith("spark.")] == []
