"""`recsys similar`: what goes with an item."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys_spark.commands.output import Env, Json, RunDate, attempt


def similar(
    item: Annotated[str, typer.Option(help="The item's id.")],
    run_date: RunDate,
    env: Env = "prod",
    json_file: Json = None,
) -> None:
    """Show what goes with an item, with titles and with what speaks for it."""
    from recsys_spark.commands.look.similar_table import show_similar  # noqa: PLC0415

    attempt(lambda: show_similar(env, run_date, item, json_file=json_file))
