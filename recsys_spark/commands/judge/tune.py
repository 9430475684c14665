"""`recsys tune`: a search for better parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys_spark.commands.output import Env, Json, RunDate, attempt


def tune(
    run_date: RunDate,
    env: Env = "prod",
    trials: Annotated[
        int, typer.Option(min=1, help="Until the study has so many, those of earlier searches included.")
    ] = 30,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Begin no further trial after so many seconds.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write what is better to this new file, as TOML for conf/ENV.toml.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Search for better parameters on the weeks before those that the night is judged by."""

    def action() -> None:
        from recsys_spark.commands.judge.search_lines import show_search  # noqa: PLC0415

        show_search(env, run_date, trials=trials, seconds=seconds, write=write, json_file=json_file)

    attempt(action)
