"""The night's backtest: models of four weeks ago, judged by the four weeks that end at the run date."""

from __future__ import annotations

from recsys_spark.evaluation.nights import can_judge, cutoff_of, judge_by_window
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_METRICS
from recsys_spark.names import HEADLINE, HYBRID


def run(job: Job) -> Summary:
    if not can_judge(job):
        note = f"no events before {cutoff_of(job)}: the night is not judged"
        return Summary(0, 0, MODEL_METRICS.name, notes=(note,))
    judgement = judge_by_window(job)
    figures = {
        (HEADLINE, f"{task}:{model}"): values[HEADLINE]
        for task, models in judgement.values.items()
        for model, values in models.items()
    }
    notes = tuple(
        f"{task}: NDCG@10 {values[HYBRID][HEADLINE]:.3f}"
        for task, values in judgement.values.items()
        if HYBRID in values
    )
    users = max(judgement.users.values(), default=0)
    return Summary(users, len(figures), MODEL_METRICS.name, figures, notes)
