"""`recsys evaluate`: how good a night's lists are, beside its components and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys_spark.commands.output import Env, Json, attempt


def evaluate(
    run_date: Annotated[str, typer.Option(help="The night's date, YYYY-MM-DD.")] = "",
    env: Env = "prod",
    after: Annotated[
        bool, typer.Option(help="Judge by the weeks after the run date (for demonstrations).")
    ] = False,
    baselines: Annotated[
        bool, typer.Option(help="Judge kNN, SVD, item2vec, BPR and simpler ones as well.")
    ] = False,
    split: Annotated[
        str, typer.Option(help="time: the last weeks are the test | leave-last-one: each user's last event.")
    ] = "time",
    cold_items: Annotated[
        bool, typer.Option(help="Withhold all events of a tenth of the items: what their words are worth.")
    ] = False,
    train: Annotated[Path | None, typer.Option(help="A published split's train file, with --test.")] = None,
    test: Annotated[Path | None, typer.Option(help="Its test file.")] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="Of both files: pairs (user item) | lists (user item item …) | auto."),
    ] = "auto",
    json_file: Json = None,
) -> None:
    """Print the quality of hybrid and components, for two tasks, or of models on a published split."""

    def action() -> None:
        from recsys_spark.commands.judge.evaluation_tables import (  # noqa: PLC0415
            show_cold_start,
            show_night,
            show_split,
        )

        if train or test:
            show_split(env, train=train, test=test, form=form, json_file=json_file)
        elif cold_items:
            show_cold_start(env, run_date, json_file=json_file)
        else:
            show_night(env, run_date, split=split, after=after, baselines=baselines, json_file=json_file)

    attempt(action)
