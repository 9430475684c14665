"""Two environments in one lake: gold belongs to the first that publishes there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import gold_owner, open_run, record_state
from recsys_spark.lake.tables import (
    GOLD_PUBLISHED_RUNS,
    GOLD_RECOMMENDATIONS,
    GOLD_STAGED,
    OPS_RUNS,
    SILVER_ITEMS,
    SILVER_PREFERENCES,
)
from recsys_spark.runtime.rows import frame_of
from recsys_spark.stages import deliver, publish
from tests.push.small_lake import (
    DAY,
    EVER,
    NEVER,
    exported,
    keep,
    mail,
    mailed,
    make_visible,
    outbox_of,
    replace_people,
    small_job,
    user,
)

USERS = ("u1", "u2", "u3")
ITEMS = ("tea", "jam", "rye")
SOLD = [{"item_id": item, "is_available": True, "valid_from": EVER, "valid_to": NEVER} for item in ITEMS]


def stage(job: Job, campaign: str) -> None:
    """Open a run, and stage a list of one item for each user, as `recommend` does."""
    run = open_run(job.lake, job.settings, DAY)
    rows = [
        {
            "run_date": DAY,
            "channel": "email",
            "campaign": campaign,
            "user_id": name,
            "rank": 1,
            "item_id": item,
            "score": 1.0,
            "is_sendable": True,
            "run_id": run.run_id,
            "env": run.env,
        }
        for name, item in zip(USERS, ITEMS, strict=True)
    ]
    values = [tuple(row.get(name) for name in GOLD_STAGED.columns) for row in rows]
    lists = frame_of(job.spark, values, GOLD_STAGED.schema)
    job.overwrite_partition(GOLD_STAGED, lists, run_id=run.run_id)


def staged_by(job: Job) -> set[tuple[str, str]]:
    return {(row["env"], row["campaign"]) for row in job.read(GOLD_STAGED).collect()}


def test_another_environment_neither_publishes_nor_delivers_and_its_lists_stay_staged(
    spark: SparkSession, tmp_path: Path
) -> None:
    ours = small_job(spark, tmp_path, {"ours": mail()}, env="prod")
    theirs = small_job(spark, tmp_path, {"theirs": mail()}, env="trial")
    alike = small_job(spark, tmp_path, {"ours": mail()}, env="twin")
    replace_people(ours, [user(name) for name in USERS], [])
    keep(ours, SILVER_ITEMS, SOLD)
    keep(ours, SILVER_PREFERENCES, [])
    assert gold_owner(ours.lake) is None
    with pytest.raises(ConfigError, match="no run is open for 2024-06-02 in .* by environment 'prod'"):
        publish.run(ours)
    stage(ours, "ours")
    publish.run(replace(ours))
    assert gold_owner(ours.lake) == "prod"
    lists = {tuple(row) for row in ours.read(GOLD_RECOMMENDATIONS).select("campaign", "user_id").collect()}
    assert lists == {("ours", name) for name in USERS}
    version = ours.lake.version(GOLD_RECOMMENDATIONS)

    # Others may stage in between; the same night of each is their own, however alike their settings are.
    stage(theirs, "theirs")
    stage(alike, "ours")
    assert staged_by(ours) == {("prod", "ours"), ("trial", "theirs"), ("twin", "ours")}
    runs = {replace(job).run.run_id for job in (ours, theirs, alike)}
    assert len(runs) == 3
    for other in (theirs, alike):
        for what, refused in ((publish, "stay staged"), (deliver, "nothing was delivered")):
            with pytest.raises(ConfigError) as told:
                what.run(replace(other))
            assert told.value.exit_code == 2
            assert refused in str(told.value)
            assert "belongs to environment 'prod', the first that published there" in str(told.value)
            assert f"conf/{other.settings.env}.toml" in str(told.value)
        assert not other.output.exists() or not list(other.output.rglob("*.html"))
    assert staged_by(ours) == {("prod", "ours"), ("trial", "theirs"), ("twin", "ours")}

    # The owner goes on as before: a rerun commits nothing, and it delivers what is its own.
    publish.run(replace(ours))
    assert ours.lake.version(GOLD_RECOMMENDATIONS) == version
    assert ours.read(GOLD_PUBLISHED_RUNS).count() == 1
    deliver.run(replace(ours))
    assert outbox_of(ours, "rendered") == mailed(ours) == exported(ours) == {("ours", name) for name in USERS}


def test_lists_that_another_environment_published_before_gold_had_an_owner_are_not_delivered(
    spark: SparkSession, tmp_path: Path
) -> None:
    """A lake of an earlier version: ours published first, theirs replaced the date's lists afterwards."""
    ours = small_job(spark, tmp_path, {"ours": mail()}, env="prod")
    theirs = small_job(spark, tmp_path, {"ours": mail()}, env="trial")
    replace_people(ours, [user(name) for name in USERS], [])
    runs = [open_run(job.lake, job.settings, DAY) for job in (ours, theirs)]
    for job, run in zip((ours, theirs), runs, strict=True):
        make_visible(job, run_id=run.run_id)
        record_state(job.lake, run, "published")
    with pytest.raises(
        ConfigError, match=f"are of environment 'trial' .run {runs[1].run_id}., and this is 'prod'"
    ):
        deliver.run(ours)
    assert not ours.output.exists()


def test_a_publication_whose_record_was_cut_off_is_recorded_by_the_rerun(
    spark: SparkSession, tmp_path: Path
) -> None:
    job = small_job(spark, tmp_path, {"ours": mail()}, env="prod")
    replace_people(job, [user(name) for name in USERS], [])
    keep(job, SILVER_ITEMS, SOLD)
    stage(job, "ours")
    lists = job.read(GOLD_STAGED).drop("env")
    job.overwrite_partition(GOLD_RECOMMENDATIONS, lists, run_date=DAY)
    assert gold_owner(job.lake) is None
    for _ in range(2):
        publish.run(replace(job))
        assert gold_owner(job.lake) == "prod"
        assert job.read(OPS_RUNS).where("state = 'published'").count() == 1
    assert job.read(GOLD_PUBLISHED_RUNS).count() == 1
