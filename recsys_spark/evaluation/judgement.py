"""Lists of many models held against what users did: every figure, slice and interval of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Evaluation as Settings
from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.validity import current_on
from recsys_spark.evaluation.metrics.metrics import averages, by_user, scores_of, tallies
from recsys_spark.evaluation.metrics.ratings import RatingJudgement
from recsys_spark.evaluation.metrics.significance import Interval, Paired, paired_bootstrap, paired_scores
from recsys_spark.evaluation.metrics.slices import BINS, HISTORY, RARE, groups_of, sliced
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import MODEL_CONTENT_VECTORS
from recsys_spark.models.versions import of_version
from recsys_spark.names import COMPONENTS, HEADLINE, HYBRID, REPEATS_ALLOWED, TASKS
from recsys_spark.ranking.rankable import on_sale
from recsys_spark.runtime.broadcasts import broadcast_if_small
from recsys_spark.runtime.checkpoints import checkpointed

RATINGS = "ratings"  # the task of predicting them


@dataclass(frozen=True)
class Backtest:
    """What is judged by what: the lists of a model version as of a day, and the events that tell.

    `known` are the events that the version may know, `preferences` what they make; `wanted` (user_id,
    item_id, …) are the events to judge by, from `first` to `last`. `when` ends "no events …". `rated`
    (user_id, item_id, rating) are the ratings to be predicted, where the models predict ratings.
    """

    version: str
    cutoff: date
    preferences: DataFrame
    known: DataFrame
    wanted: DataFrame
    first: date
    last: date
    when: str
    rated: DataFrame | None = None


@dataclass(frozen=True)
class Judgement:
    """Figures of every model for each task: values[task][model][metric], and what they stand on.

    A task that nobody's events judge is in none of them, and `notes` says so.

    differences[task][model] is by how much the hybrid leads it. sliced[task][slice][name] is the number of
    users in a slice, and their NDCG@10 by model; leads[task][history] the best component of a bin of
    history, and by how much the hybrid leads it there. `baselines` are the models beside hybrid and
    components; `notes` are sentences for people, and weights[task] those on what the hybrid's weights are.
    """

    judged_from: date
    judged_to: date
    values: dict[str, dict[str, dict[str, float]]]
    users: dict[str, int]
    differences: dict[str, dict[str, Interval]]
    sliced: dict[str, dict[str, dict[str, tuple[int, dict[str, float]]]]] = field(default_factory=dict)
    leads: dict[str, dict[str, tuple[str, Interval]]] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ratings: RatingJudgement | None = None
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def models(self) -> tuple[str, ...]:
        return (HYBRID, *COMPONENTS, *self.baselines)

    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        """`values` with slices and leads beside: ndcg@10|history:1-9, hybrid_leads_ndcg@10, …_low, …_high."""
        figures = {
            task: {model: dict(of) for model, of in models.items()} for task, models in self.values.items()
        }
        for task, model, metric, value, _ in self.slice_rows():
            figures[task].setdefault(model, {})[metric] = value
        for task, leads in self.differences.items():
            for model, lead in leads.items():
                figures[task].setdefault(model, {}).update(lead_figures(HYBRID, HEADLINE, lead))
        for task, bins in self.leads.items():
            for name, (model, lead) in bins.items():
                figures[task][model].update(lead_figures(HYBRID, f"{HEADLINE}|{HISTORY}:{name}", lead))
        if self.ratings:
            figures[RATINGS] = self.ratings.values
        return figures

    def slice_rows(self) -> list[tuple[str, str, str, float, int]]:
        """(task, model, metric such as ndcg@10|segment:gold, value, users)."""
        return [
            (task, model, f"{HEADLINE}|{kind}:{name}", value, users)
            for task, kinds in self.sliced.items()
            for kind, names in kinds.items()
            for name, (users, models) in names.items()
            for model, value in models.items()
        ]


def lead_figures(leader: str, metric: str, lead: Interval) -> dict[str, float]:
    """By how much the leader's metric is above another model's, as figures of that one."""
    name = f"{leader}_leads_{metric}"
    return {name: lead.mean, f"{name}_low": lead.low, f"{name}_high": lead.high}


def measured(
    job: Job,
    backtest: Backtest,
    ranked: DataFrame,
    relevant: DataFrame,
    *,
    baselines: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Judgement:
    """Every figure of the lists `ranked`, held against the `relevant` items.

    job: its lake holds items, users and words; its settings say list lengths, bootstrap samples and seed.
    backtest: what is judged by what; its cutoff, version and preferences describe users and items.
    ranked: (task, model, user_id, item_id, rank from 1); read more than once.
    relevant: (task, user_id, item_id): what was right for each user; read more than once.
    baselines: names of the models in `ranked` beside the hybrid and the components.
    notes: sentences for people, kept as they are.

    A task without users who have a list and something relevant has no figures, and a note says so.
    Raises ValueError where a task has users, and the hybrid, a component or a baseline has no list for it.
    """
    settings = job.settings.evaluation
    size = on_sale(versions_on(job.lake, job.settings, "items", backtest.cutoff), backtest.cutoff).count()
    ks = sorted({*settings.k, 10})
    tallied = _tallied(job, backtest, ranked, relevant, ks)
    scores = scores_of(tallied, ks=ks)
    values: dict[str, dict[str, dict[str, float]]] = {task: {} for task in TASKS}
    judged: dict[str, int] = {}
    for row in averages(tallied, ks=ks, catalogue_size=size).collect():
        values[row["task"]].setdefault(row["model"], {})[row["metric"]] = float(row["value"])
        if row["metric"] == HEADLINE:
            judged[row["task"]] = int(row["users"])
    # What lists show is known of a task even where nobody's events say how good they are.
    values = {task: models for task, models in values.items() if judged.get(task)}
    notes = (*notes, *(unjudged(task, backtest.when) for task in TASKS if task not in values))
    groups = _groups(job, backtest, relevant)
    history = {row["user_id"]: row[HISTORY] for row in groups.select("user_id", HISTORY).collect()}
    per_user, others = by_user(scores, ks=[10]), (*COMPONENTS, *baselines)
    differences, leads = {}, {}
    for task in values:
        paired = paired_scores(per_user, metric=HEADLINE, models=[HYBRID, *others], task=task)
        differences[task] = {name: _lead(settings, paired, name, slice(None)) for name in others}
        leads[task] = _leads_by_history(settings, paired, history)
    slices = _slices(sliced(scores, groups, metric=HEADLINE))
    return Judgement(
        backtest.first, backtest.last, values, judged, differences, slices, leads, baselines, notes
    )


def unjudged(task: str, when: str) -> str:
    """Why there are no figures of a task, as a sentence; `when` is when the events that judge happened."""
    what = "had anything" if task == REPEATS_ALLOWED else "had anything for the first time"
    return f"{task} is not judged: nobody who could have a list {what} {when}"


def _groups(job: Job, backtest: Backtest, relevant: DataFrame) -> DataFrame:
    people = current_on(
        versions_on(job.lake, job.settings, "users", backtest.cutoff), backtest.cutoff, "user_id"
    )
    users = relevant.select("user_id").distinct()
    return checkpointed(groups_of(users, pairs=backtest.preferences, people=people))


def _tallied(
    job: Job, backtest: Backtest, ranked: DataFrame, relevant: DataFrame, ks: Sequence[int]
) -> DataFrame:
    liked = backtest.preferences.where(F.col("strength") > 0)
    users = max(liked.select("user_id").distinct().count(), 1)
    popularity = checkpointed(
        liked.groupBy("item_id").agg((F.count(F.lit(1)) / F.lit(users)).alias("popularity"))
    )
    popularity = broadcast_if_small(popularity, popularity.count())
    tallied = tallies(
        ranked,
        relevant,
        ks=ks,
        item_popularity=popularity,
        item_vectors=of_version(job, MODEL_CONTENT_VECTORS, backtest.version),
        rare=[fewer_than / users for fewer_than, _ in RARE],
    )
    return checkpointed(tallied)


def _lead(settings: Settings, paired: Paired, other: str, users: slice | NDArray[np.bool_]) -> Interval:
    """NDCG@10 of the hybrid minus another model's, with a paired bootstrap interval over the users."""
    differences = paired.difference(HYBRID, other)[users]
    return paired_bootstrap(differences, samples=settings.bootstrap_samples, seed=settings.seed)


def _leads_by_history(
    settings: Settings, paired: Paired, history: Mapping[str, str]
) -> dict[str, tuple[str, Interval]]:
    """Of each bin the component that is best there, and the hybrid's lead on it."""
    of_user = np.array([history[user] for user in paired.users])
    leads = {}
    for _, name in BINS:
        inside = of_user == name
        if inside.any():
            best = max(COMPONENTS, key=lambda model: paired.values[model][inside].mean())
            leads[name] = (best, _lead(settings, paired, best, inside))
    return leads


def _slices(rows: DataFrame) -> dict[str, dict[str, dict[str, tuple[int, dict[str, float]]]]]:
    slices: dict[str, dict[str, dict[str, tuple[int, dict[str, float]]]]] = {}
    for row in rows.collect():
        names = slices.setdefault(row["task"], {}).setdefault(row["slice"], {})
        _, models = names.setdefault(row["name"], (int(row["users"]), {}))
        models[row["model"]] = float(row["value"])
    return slices
