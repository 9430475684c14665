"""The blend's weights: those of the configuration, or learned on the weeks that end where lists begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recsys_spark.data.reading import preferences_on
from recsys_spark.errors import NothingOnSaleError
from recsys_spark.evaluation.backtest import judged_items, window_events
from recsys_spark.evaluation.weights.search import BinWeights, Cases, learned
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import MODEL_BLEND_WEIGHTS
from recsys_spark.models.history import with_fade
from recsys_spark.models.versions import train_earlier_once
from recsys_spark.names import COMPONENTS, HYBRID, TASKS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.rankable import rankable_catalogue, user_factors
from recsys_spark.ranking.weight_cases import candidates
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.rows import frame_of


def weigh_once(job: Job, version: str, day: date, *, may_learn: bool = True) -> tuple[str, ...]:
    """Store the weights of a version whose lists begin after `day`, unless it has them; notes for people.

    Nothing after that day is looked at. Learned ones come from models as of one window earlier, judged by
    the window that ends with the day: for a night those are the models that its backtest needs anyway, for
    the backtest they are trained here.
    """
    if job.lake.has_partition(MODEL_BLEND_WEIGHTS, model_version=version):
        return ()
    weights_by_task = {task: BinWeights({0: job.settings.blend.fixed(task)}, ()) for task in TASKS}
    if may_learn and job.settings.blend.weights == "learned":
        weights_by_task |= _learned(job, day)
    rows = [
        (version, task, min_pairs, component, weight)
        for task, one in weights_by_task.items()
        for min_pairs, weights in one.bins.items()
        for component, weight in weights.items()
    ]
    frame = frame_of(job.spark, rows, MODEL_BLEND_WEIGHTS.schema)
    job.overwrite_partition(MODEL_BLEND_WEIGHTS, frame, model_version=version)
    return tuple(f"{task}: {note}" for task, one in weights_by_task.items() for note in one.notes)


def _learned(job: Job, day: date) -> dict[str, BinWeights]:
    """What a search finds for each task, or that the configured weights stand and why."""
    settings, days = job.settings.blend, job.settings.evaluation.window_days
    cutoff = day - timedelta(days=days)
    pairs = checkpointed(preferences_on(job, cutoff))
    if pairs.where(F.col("strength") > 0).isEmpty():
        return {task: _as_configured(job, task, f"no preferences on {cutoff}") for task in TASKS}
    try:
        all_cases = cases_of(job, cutoff, days=days, pairs=pairs)
    except NothingOnSaleError:
        return {task: _as_configured(job, task, f"no item was on sale on {cutoff}") for task in TASKS}
    weights_by_task = {}
    for task, cases in all_cases.items():
        if cases.size < settings.min_users:
            weights_by_task[task] = _as_configured(job, task, f"{cases.size} users to learn from")
            continue
        weights_by_task[task] = learned(
            cases,
            settings.fixed(task),
            bins=settings.bins,
            min_users=settings.min_users,
            samples=job.settings.evaluation.bootstrap_samples,
            seed=job.settings.evaluation.seed,
        )
    return weights_by_task


def _as_configured(job: Job, task: str, because: str) -> BinWeights:
    return BinWeights({0: job.settings.blend.fixed(task)}, (f"weights as configured: {because}",))


def cases_of(job: Job, cutoff: date, *, days: int, pairs: DataFrame) -> dict[str, Cases]:
    """Each task's users with what was right for them in the days after the cutoff, on the driver.

    pairs: the preferences as of the cutoff. Models are those as of the cutoff, trained here where they are
    not there yet. At most max_users users, those of the lowest hashes of their ids. Raises NothingOnSaleError
    where no item was on sale then.
    """
    settings = job.settings.blend
    events = window_events(job, cutoff, days=days)
    relevant = judged_items(events, pairs, at_most=settings.max_users, purpose="teach")
    version = train_earlier_once(job, cutoff, pairs)
    catalogue = rankable_catalogue(job, version, cutoff)
    try:
        rows = candidates(
            relevant.select("user_id").distinct(),
            preferences=with_fade(pairs, run_date=cutoff, settings=job.settings.history),
            user_factors=user_factors(job, version),
            catalogue=catalogue,
            starts=[Variant(task, HYBRID, settings.fixed(task)) for task in TASKS],
            n=settings.candidates,
            partitions=job.spark.sparkContext.defaultParallelism,
        ).toArrow()
        right = _right(relevant, catalogue.index)
        return {task: cases_from(rows, right, task) for task in TASKS}
    finally:
        catalogue.release()


def _right(relevant: DataFrame, index: DataFrame) -> Mapping[tuple[str, str], Row]:
    """By task and user: wanted, how many items were right, and item_indexes, those of them on sale."""
    indexed = relevant.join(F.broadcast(index), on="item_id", how="left")
    rows = indexed.groupBy("task", "user_id").agg(
        F.count(F.lit(1)).alias("wanted"), F.collect_list("item_index").alias("item_indexes")
    )
    return {(row["task"], row["user_id"]): row for row in rows.collect()}


def cases_from(rows: pa.Table, right: Mapping[tuple[str, str], Row], task: str) -> Cases:
    """The task's rows of `candidates` beside what was right; users for whom nothing was are left out."""
    known = {
        (at, user): n for n, (at, user) in enumerate(zip(*_columns(rows, "task", "user_id"), strict=True))
    }
    users = sorted(user for at, user in right if at == task and (task, user) in known)
    at = [known[task, user] for user in users]
    items, scores = ([column[n].values.to_numpy() for n in at] for column in _lists(rows))
    width = max((one.size for one in items), default=0) or 1
    cases = Cases(
        scores=np.zeros((len(COMPONENTS), len(at), width), np.float32),
        is_item=np.zeros((len(at), width), np.bool_),
        is_hit=np.zeros((len(at), width), np.bool_),
        wanted=np.array([right[task, user]["wanted"] for user in users], np.int64),
        pairs=rows.column("pairs").to_numpy()[at].astype(np.int64),
    )
    for row, (user, one, given) in enumerate(zip(users, items, scores, strict=True)):
        cases.scores[:, row, : one.size] = given.reshape(-1, len(COMPONENTS)).T
        cases.is_item[row, : one.size] = True
        cases.is_hit[row, : one.size] = np.isin(one, right[task, user]["item_indexes"])
    return cases


def _columns(rows: pa.Table, *names: str) -> Sequence[list[str]]:
    return [rows.column(name).to_pylist() for name in names]


def _lists(rows: pa.Table) -> Sequence[pa.Array]:
    return [rows.column(name).combine_chunks() for name in ("items", "scores")]
