"""A search over parameters: trials one after the other, each kept, on the validation window only.

A study is its rows in models.tune_trials: what it tries next depends on them and on the seed, so a search
that was interrupted goes on as if it had not been. Models of a trial lie in a folder beside the tables and
are deleted with it: in models.* of the lake their files would stay until a vacuum, and in memory a trial
would not be what a night does, which reads its models from tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from recsys_spark.config.sections import digest
from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.evaluation.tuning.judge import (
    Evidence,
    Scores,
    Window,
    by_task,
    evidence_key,
    evidence_of,
    gains,
    hybrid_scores,
    objective,
    seen,
    unseen,
)
from recsys_spark.evaluation.tuning.space import (
    Dimension,
    Parameters,
    check_optuna,
    configured,
    proposed,
    space_of,
    with_parameters,
)
from recsys_spark.lake import lock
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import code_hash
from recsys_spark.lake.store import java_reason
from recsys_spark.lake.tables import MODEL_TUNE_TRIALS
from recsys_spark.runtime.rows import frame_of


@dataclass(frozen=True)
class Tried:
    """One trial: ndcg by task and their mean, `value`, over the users of the search; None where it failed."""

    number: int
    seed: int
    parameters: Parameters
    value: float | None
    ndcg: dict[str, float]
    users: int
    seconds: float
    error: str = ""

    @property
    def state(self) -> str:
        return "failed" if self.value is None else "complete"


@dataclass(frozen=True)
class Study:
    """Trials that can be compared, and how they are kept. `name` is equal for equal evidence and settings."""

    job: Job
    window: Window
    space: tuple[Dimension, ...]
    name: str

    @classmethod
    def of(cls, job: Job, evidence: Evidence) -> Study:
        window = evidence.window
        key = digest(
            [window.cutoff, window.last, evidence_key(job, evidence), job.settings.fingerprint(), code_hash()]
        )
        return cls(job, window, space_of(job.settings), f"tune-{job.run_date:%Y%m%d}-{key[:10]}")

    @property
    def configured(self) -> Parameters:
        return configured(self.job.settings, self.space)

    @property
    def scratch(self) -> str:
        """Where the trials' models lie while they are judged."""
        return f"{_room(self.job)}/{self.name}"

    def seed(self, number: int) -> int:
        """Each trial draws anew: what it draws must not depend on which search tried the ones before."""
        return 1_000_000 * self.job.settings.evaluation.seed + number

    def tried(self) -> list[Tried]:
        """The trials so far, in order."""
        rows = self.job.read(MODEL_TUNE_TRIALS).where(F.col("study") == self.name).orderBy("trial").collect()
        return [
            Tried(
                row["trial"],
                row["seed"],
                json.loads(row["parameters"]),
                row["value"],
                row["ndcg"],
                row["users"],
                row["seconds"],
                row["error"],
            )
            for row in rows
        ]

    def keep(self, trial: Tried) -> None:
        row = (
            self.name,
            trial.number,
            self.job.run_date,
            self.window.cutoff,
            self.window.first,
            self.window.last,
            trial.seed,
            json.dumps(trial.parameters, sort_keys=True),
            trial.state,
            trial.value,
            trial.ndcg,
            trial.users,
            trial.seconds,
            trial.error,
            datetime.now(UTC),
        )
        frame = frame_of(self.job.spark, [row], MODEL_TUNE_TRIALS.schema)
        self.job.merge(MODEL_TUNE_TRIALS, frame)


@dataclass(frozen=True)
class Outcome:
    """The end of a search: its trials, that of the present configuration, and the best.

    before, after: the objective of the two over the users that the search did not see, and gains there by
    task and for the objective.
    """

    study: Study
    tried: tuple[Tried, ...]
    present: Tried
    best: Tried
    before: float
    after: float
    gains: dict[str, Interval]
    unseen_users: int

    @property
    def is_proven(self) -> bool:
        return self.gains["objective"].low > 0


def search(job: Job, *, trials: int, seconds: float | None, tell: Callable[[Tried], None]) -> Outcome:
    """Try parameters until the study has so many trials, those of earlier searches included.

    The first trial is the present configuration; where it fails, so does the search. Another that fails is
    kept as failed. None begins once so many seconds have passed. tell: called with each trial as it ends.
    """
    began = time.monotonic()
    check_optuna()
    window = Window.of(job.run_date, days=job.settings.evaluation.window_days)
    wait = job.settings.lake.wait_seconds
    doing = f"a search on {job.run_date}"
    with lock.held(_room(job), wait_seconds=wait, doing=doing):
        evidence = evidence_of(job, window)
        study = Study.of(job, evidence)
        scores: dict[int, Scores] = {}
        tried = study.tried()
        present = next((one for one in tried if one.value is not None), None)
        if present is None:
            present = _try(study, len(tried), study.configured, evidence, scores, may_fail=False)
            tried.append(present)
            tell(present)
        while len(tried) < trials and (seconds is None or time.monotonic() - began < seconds):
            known = [(one.parameters, one.value) for one in tried]
            parameters = proposed(study.space, known, seed=study.seed(len(tried)))
            tried.append(_try(study, len(tried), parameters, evidence, scores, may_fail=True))
            tell(tried[-1])
            for number in {*scores} - {present.number, _best(tried).number}:
                del scores[number]
        outcome = _outcome(study, tried, present, evidence, scores)
        job.lake.remove(study.scratch)
        return outcome


def _room(job: Job) -> str:
    """The folder beside the lake's tables that one search at a time holds; nights do not wait for it."""
    return f"{job.lake.root.rstrip('/')}/_tune"


def _try(
    study: Study,
    number: int,
    parameters: Parameters,
    evidence: Evidence,
    scores: dict[int, Scores],
    *,
    may_fail: bool,
) -> Tried:
    """Try the parameters, keep how it went, and put the scores of a whole trial under its number."""
    began, seed = time.monotonic(), study.seed(number)
    try:
        scores[number] = _measured(study, parameters, evidence)
    except Exception as error:
        spent = time.monotonic() - began
        trial = Tried(number, seed, parameters, None, {}, 0, spent, _reason(error))
        study.keep(trial)
        if may_fail:
            return trial
        raise
    chosen_by, spent = seen(scores[number]), time.monotonic() - began
    value, ndcg = objective(chosen_by), by_task(chosen_by)
    trial = Tried(number, seed, parameters, value, ndcg, chosen_by.shape[1], spent)
    study.keep(trial)
    return trial


def _measured(study: Study, parameters: Parameters, evidence: Evidence) -> Scores:
    """The scores of the configuration with these parameters; nothing is left of its models."""
    with _thrown_away(study) as models:
        settings = with_parameters(study.job.settings, parameters)
        return hybrid_scores(replace(study.job, settings=settings, models=models), evidence)


@contextmanager
def _thrown_away(study: Study) -> Iterator[str]:
    # A name of its own, because Delta remembers what once lay at a path.
    folder = f"{study.scratch}/{uuid4().hex}"
    try:
        yield folder
    finally:
        study.job.lake.remove(folder)


def _reason(error: Exception) -> str:
    if isinstance(error, PySparkException | Py4JJavaError):
        return java_reason(error)
    return f"{type(error).__name__}: {error}"


def _best(tried: Sequence[Tried]) -> Tried:
    """The highest value; of equals the earliest, so that nothing changes without a gain."""
    return max((one for one in tried if one.value is not None), key=lambda one: (one.value, -one.number))


def _outcome(
    study: Study, tried: Sequence[Tried], present: Tried, evidence: Evidence, scores: dict[int, Scores]
) -> Outcome:
    """Judge the best beside the present configuration; what an earlier search tried is trained again."""
    best = _best(tried)
    for one in {present.number: present, best.number: best}.values():
        if one.number not in scores:
            scores[one.number] = _measured(study, one.parameters, evidence)
    before, after = unseen(scores[present.number]), unseen(scores[best.number])
    settings = study.job.settings.evaluation
    return Outcome(
        study=study,
        tried=tuple(tried),
        present=present,
        best=best,
        before=objective(before),
        after=objective(after),
        gains=gains(before, after, samples=settings.bootstrap_samples, seed=settings.seed),
        unseen_users=before.shape[1],
    )
