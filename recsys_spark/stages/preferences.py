"""Silver interactions to one strength per user and item, as of the run date."""

from __future__ import annotations

from pyspark.sql import functions as F

from recsys_spark.data.bots import excluded_users
from recsys_spark.data.gates.figures import recorded
from recsys_spark.data.gates.judge import judged, preload, require_success
from recsys_spark.data.gates.past_nights import past_nights
from recsys_spark.data.gates.preference_gate import KIND, preference_suite
from recsys_spark.data.reading import excluded_on, preferences_on
from recsys_spark.errors import InputError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import (
    SILVER_EXCLUDED_USERS,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
    SILVER_PREFERENCES,
)


def run(job: Job) -> Summary:
    job.run  # noqa: B018 - no open run: say so before any work
    preload()
    day = job.run_date
    excluded = excluded_users(job.read(SILVER_INTERACTIONS), day, bots=job.settings.bots)
    # One file by a shuffle of the few that are found: `coalesce` would have one core look for them.
    job.overwrite_partition(SILVER_EXCLUDED_USERS, excluded.repartition(1), run_date=day)
    job.overwrite_partition(SILVER_PREFERENCES, preferences_on(job, day), run_date=day)
    rows = job.lake.rows_written(SILVER_PREFERENCES)
    # By partitions and the files' own counts: no row is read for it.
    events = job.read(SILVER_INTERACTIONS).where(F.col("event_date") <= F.lit(day)).count()
    pairs = job.read(SILVER_PREFERENCES).where(F.col("run_date") == F.lit(day))
    if pairs.where(F.col("strength") > 0).isEmpty():
        raise InputError(
            f"no preferences on {day}: no event until then has a type that preferences.event_weights "
            "gives a weight, or every user is excluded by [bots] or has too few events."
        )
    users, per_reason = _excluded(job)
    figures = {("excluded_users", reason): float(count) for reason, count in per_reason.items()}
    figures |= judge_preferences(job)
    return Summary(events, rows, SILVER_PREFERENCES.name, figures, _notes(users, per_reason))


def judge_preferences(job: Job) -> dict[tuple[str, str], float]:
    """The figures of the night's preferences as stored, for ops.metrics.

    Raises QualityGateError where an expectation fails. The night's preferences are then deleted, so that no
    later stage can train on them. They are judged as stored because making them twice would cost more.
    """
    day, thresholds = job.run_date, job.settings.quality
    check, figures = preference_suite(
        job.read(SILVER_PREFERENCES).where(F.col("run_date") == F.lit(day)),
        job.read(SILVER_ITEMS),
        cap=job.settings.preferences.cap,
        quality=thresholds,
        run_date=day,
        past=past_nights(job.lake, KIND, run_date=day, nights=thresholds.history_nights, adds_up=False),
    )
    results = judged(job, [check], stage=KIND)
    if not all(result.is_success for result in results):
        job.lake.delete(SILVER_PREFERENCES, f"run_date = DATE '{day}'")
    require_success(results, what=f"the preferences of {day} were not kept")
    return recorded(KIND, figures)


def _excluded(job: Job) -> tuple[int, dict[str, int]]:
    """How many users are excluded, and how many break each rule."""
    excluded = excluded_on(job, job.run_date)
    counts = excluded.groupBy("reason").count().orderBy("reason").collect()
    if not counts:
        return 0, {}
    return excluded.select("user_id").distinct().count(), {row["reason"]: row["count"] for row in counts}


def _notes(users: int, per_reason: dict[str, int]) -> tuple[str, ...]:
    if not users:
        return ()
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in per_reason.items())
    return (f"{users:,} {'user' if users == 1 else 'users'} excluded: {reasons}",)
