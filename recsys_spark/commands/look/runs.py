"""`recsys runs`: the nights that the lake knows, and two lakes' lists of one night."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from recsys_spark.commands.output import Env, RunDate, attempt, show
from recsys_spark.config.load import load_settings, resolve_path
from recsys_spark.errors import ConfigError
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import OPS_RUNS
from recsys_spark.night import parse_date, session

_NEWEST = 100


def list_runs(env: Env = "prod") -> None:
    """The last 100 records of runs, newest first."""

    def action() -> None:
        settings = load_settings(env)
        lake = Lake(session("recsys", settings), resolve_path(settings, settings.lake.path))
        table = Table("recorded at (UTC)", "run date", "run", "state")
        for row in lake.read(OPS_RUNS).orderBy("recorded_at", ascending=False).limit(_NEWEST).collect():
            at = f"{row['recorded_at']:%Y-%m-%d %H:%M:%S}"
            table.add_row(at, str(row["run_date"]), row["run_id"], row["state"])
        show(table)

    attempt(action)


def diff_runs(
    left: Annotated[str, typer.Argument(help="Root of one lake.")],
    right: Annotated[str, typer.Argument(help="Root of the other.")],
    run_date: RunDate,
    env: Env = "prod",
    at_least: Annotated[
        float, typer.Option(help="Share of lists that must be equal, or exit code 2.")
    ] = 0.99,
) -> None:
    """Compare the published lists of one night in two lakes, slot by slot."""

    def action() -> None:
        from recsys_spark.evaluation.comparison import compare_lists  # noqa: PLC0415

        spark = session("recsys", load_settings(env))
        compared = compare_lists(Lake(spark, left), Lake(spark, right), run_date=parse_date(run_date))
        print(
            f"{compared.equal:,} of {compared.lists:,} lists hold the same items in the same order "
            f"({compared.share:.2%}); {compared.same_items:,} the same items in any order; "
            f"largest difference of a score in a common slot {compared.largest_difference:.2e}"
        )
        if compared.share < at_least:
            raise ConfigError(f"expected at least {at_least:.0%} equal lists.")

    attempt(action)
