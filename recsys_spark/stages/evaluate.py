"""The night's backtest: models of four weeks ago, judged by the four weeks that end at the run date."""

from __future__ import annotations

from recsys_spark.errors import NothingToJudgeError
from recsys_spark.evaluation.nights import judge_by_window
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_METRICS
from recsys_spark.names import HEADLINE, HYBRID


def run(job: Job) -> Summary:
    try:
        judgement = judge_by_window(job)
    except NothingToJudgeError as error:  # no fault of the night's lists: they are published all the same
        return Summary(0, 0, MODEL_METRICS.name, notes=(f"the night is not judged: {error}",))
    figures = {
        (HEADLINE, f"{task}:{model}"): values[HEADLINE]
        for task, models in judgement.values.items()
        for model, values in models.items()
    }
    scores = [f"{task}: NDCG@10 {values[HYBRID][HEADLINE]:.3f}" for task, values in judgement.values.items()]
    users = max(judgement.users.values(), default=0)
    return Summary(users, len(figures), MODEL_METRICS.name, figures, (*scores, *judgement.notes))
