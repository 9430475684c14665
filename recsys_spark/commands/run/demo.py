"""`recsys demo`: a complete night on a year of real retail data."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys_spark.commands.output import attempt
from recsys_spark.commands.run.night import the_night
from recsys_spark.config.load import load_settings
from recsys_spark.night import parse_date


def demo(
    prepare_only: Annotated[
        bool, typer.Option(help="Only fill the landing folder with input files.")
    ] = False,
) -> None:
    """Run a complete night on a year of real retail data, and say where its report and mails are."""

    def action() -> None:
        from recsys_spark.commands.run.demo_data import RUN_DATE, prepare  # noqa: PLC0415

        settings = load_settings("demo")
        print(f"input   {prepare(settings)}", flush=True)
        if not prepare_only:
            the_night(settings, parse_date(RUN_DATE))

    attempt(action)
