"""A night in one application, for spark-submit: `whole_night.py ENV RUN_DATE`. It ends with the publication."""

from __future__ import annotations

import sys

from recsys_spark.config.load import load_settings
from recsys_spark.night import guarded, parse_date, run_night, session, stages_between


def main() -> None:
    env, run_date = sys.argv[1:]
    settings = load_settings(env)
    spark = session("recsys-night", settings)
    run_night(
        settings, parse_date(run_date), stages_between("ingest", "publish", skip=["evaluate"]), spark=spark
    )
    spark.stop()


if __name__ == "__main__":
    sys.exit(guarded(main))
