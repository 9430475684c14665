"""`recsys quarantine`: what was rejected and why, taken back or left out for good."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys_spark.commands.output import Env, Json, attempt


def quarantine(
    env: Env = "prod",
    run_date: Annotated[
        str, typer.Option(help="Only rows taken in by this night; with --reprocess: up to it.")
    ] = "",
    samples: Annotated[int, typer.Option(help="Rows shown per reason.")] = 3,
    unmasked: Annotated[
        bool, typer.Option(help="Show user ids and broken lines as they came, not their shape.")
    ] = False,
    reprocess: Annotated[
        bool, typer.Option(help="Judge the rows again by today's rules and mappings; needs --run-date.")
    ] = False,
    discard: Annotated[
        str,
        typer.Option(metavar="FILE", help="Leave a file that a gate refused out of silver for good."),
    ] = "",
    json_file: Json = None,
) -> None:
    """Show how many delivered rows were rejected, by reason, with samples; or take repaired ones back."""
    from recsys_spark.commands.repair.quarantine_tables import (  # noqa: PLC0415
        discard_file,
        reprocess_rows,
        show_rejected,
    )

    if discard and reprocess:
        raise typer.BadParameter("--discard leaves a file out, --reprocess takes rows back: one at a time.")
    if discard:
        attempt(lambda: discard_file(env, discard, json_file))
    elif reprocess:
        attempt(lambda: reprocess_rows(env, run_date, json_file))
    else:
        attempt(
            lambda: show_rejected(env, run_date, samples=samples, is_masked=not unmasked, json_file=json_file)
        )
