"""Staged lists to published ones: judged, then made visible by one commit."""

from __future__ import annotations

from datetime import UTC, date, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.gates.figures import Figures, recorded
from recsys_spark.data.gates.judge import QualityResult, judged, preload, sentence
from recsys_spark.data.gates.past_nights import past_nights
from recsys_spark.data.gates.suites import list_check
from recsys_spark.data.snapshots import versions_on
from recsys_spark.errors import ConfigError, PublishGateError
from recsys_spark.lake.fingerprint import fingerprint
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import Run, has_state, record_state, require_own_gold
from recsys_spark.lake.tables import (
    GOLD_PUBLISHED_RUNS,
    GOLD_RECOMMENDATIONS,
    GOLD_STAGED,
    OPS_QUALITY,
    SILVER_ITEMS,
)
from recsys_spark.models.versions import preferences_of
from recsys_spark.push.audience import audience_of, people_on
from recsys_spark.push.gate import NOT_ON_SALE, Verdict, judge_lists
from recsys_spark.push.list_suite import KIND, list_figures
from recsys_spark.ranking.rankable import on_sale
from recsys_spark.runtime.rows import frame_of


def run(job: Job) -> Summary:
    preload()
    opened = job.run
    kept = f"the lists of {job.run_date} stay staged (run {opened.run_id})"
    require_own_gold(job.lake, job.settings.env, doing=kept)
    # Not kept in memory: each of its readers needs a few columns, and the write reads the rest once.
    staged = job.read(GOLD_STAGED).where(F.col("run_id") == opened.run_id).drop("env")
    verdicts = _judge(job, staged)
    _keep(job, opened, verdicts)
    figures = list_figures(staged, campaigns=job.settings.campaigns, verdicts=verdicts)
    results = _judge_figures(job, figures)
    failed = [verdict for verdict in verdicts if not verdict.is_success]
    unmet = [result for result in results if not result.is_success]
    if failed or unmet:
        record_state(job.lake, opened, "rejected")
        raise PublishGateError(_sentence(job.run_date, failed, unmet))
    rows = _publish(job, opened, staged, verdicts)
    notes = (
        f"{len(verdicts)} of {len(verdicts)} checks passed",
        f"{len(results)} of {len(results)} expectations met",
        f"version {job.lake.version(GOLD_RECOMMENDATIONS)}",
    )
    return Summary(rows, rows, GOLD_RECOMMENDATIONS.name, recorded(KIND, figures), notes)


def _judge(job: Job, staged: DataFrame) -> list[Verdict]:
    if staged.isEmpty():
        raise ConfigError(f"nothing is staged for {job.run_date}. Next: recsys run --from recommend")
    preferences = preferences_of(job)
    people = people_on(job.lake, job.run_date, settings=job.settings, preferences=preferences)
    sizes = {name: audience_of(campaign, people).count() for name, campaign in job.settings.campaigns.items()}
    return judge_lists(
        staged,
        campaigns=job.settings.campaigns,
        audience_sizes=sizes,
        known_items=on_sale(versions_on(job.lake, job.settings, "items", job.run_date), job.run_date),
        owned=preferences,
        gate=job.settings.gate,
        items=job.read(SILVER_ITEMS),
    )


def _judge_figures(job: Job, figures: Figures) -> list[QualityResult]:
    """The suite's results, kept in ops.quality_results with their Data Docs whatever the verdict."""
    thresholds = job.settings.quality
    past = past_nights(job.lake, KIND, run_date=job.run_date, nights=thresholds.history_nights, adds_up=False)
    return judged(job, [list_check(figures, quality=thresholds, past=past)], stage="publish")


def _publish(job: Job, opened: Run, staged: DataFrame, verdicts: list[Verdict]) -> int:
    """The one commit that is the publication; a rerun that would change nothing commits nothing.

    It records what a run that was killed after its commit did not.
    """
    published = job.read(GOLD_RECOMMENDATIONS).where(F.col("run_date") == F.lit(job.run_date))
    rows = staged.count()
    if published.isEmpty() or not same_rows(staged, published):
        note = {"run_id": opened.run_id, "run_date": str(job.run_date), "verdict": "published"}
        # In the order in which they were staged, by campaign and user: a look-up of one list opens few files.
        job.overwrite_partition(GOLD_RECOMMENDATIONS, staged, note=note, run_date=job.run_date)
    elif has_state(job.lake, opened, "published"):
        return rows
    figures = {f"{verdict.campaign}:{verdict.check}": float(verdict.observed) for verdict in verdicts}
    row = (
        job.run_date,
        opened.run_id,
        job.lake.version(GOLD_RECOMMENDATIONS),
        "published",
        figures,
        opened.inputs,
        opened.config_hash,
        opened.code_hash,
        datetime.now(UTC),
    )
    job.append(GOLD_PUBLISHED_RUNS, frame_of(job.spark, [row], GOLD_PUBLISHED_RUNS.schema))
    record_state(job.lake, opened, "published")
    return rows


def same_rows(left: DataFrame, right: DataFrame) -> bool:
    """Whether two frames of lists hold the same rows."""
    return fingerprint(left) == fingerprint(right)


def _keep(job: Job, opened: Run, verdicts: list[Verdict]) -> None:
    now = datetime.now(UTC)
    rows = [
        (
            opened.run_id,
            job.run_date,
            f"publish.{verdict.campaign}",
            verdict.check,
            "",
            f"{verdict.observed:g}",
            verdict.allowed,
            verdict.is_success,
            now,
        )
        for verdict in verdicts
    ]
    job.append(OPS_QUALITY, frame_of(job.spark, rows, OPS_QUALITY.schema))


def _sentence(run_date: date, failed: list[Verdict], unmet: list[QualityResult]) -> str:
    checks = [f"{item.campaign}: {item.check} {item.observed:g}, allowed {item.allowed}" for item in failed]
    faults = "; ".join([*checks, *([sentence(unmet)] if unmet else [])])
    has_left = any(item.check == NOT_ON_SALE for item in failed)
    next_step = f" Next: recsys run --run-date {run_date} --from recommend" if has_left else ""
    return f"the lists of {run_date} were not published: {faults}. The last good list stands.{next_step}"
