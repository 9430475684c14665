"""What commands take and give: their options, tables for people, the same figures for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recsys_spark.night import guarded

Env = Annotated[str, typer.Option(help="The environment: conf/ENV.toml on top of conf/base.toml.")]
RunDate = Annotated[str, typer.Option(help="The night's date, YYYY-MM-DD.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as well.")]

# A pipe has no width of its own; a table that is broken to 80 columns cannot be read or searched.
_PIPE_WIDTH = 165


def attempt(action: Callable[[], None]) -> None:
    """Run the action; a fault becomes one sentence on standard error and its documented exit code."""
    code = guarded(action)
    if code:
        raise typer.Exit(code)


def show(*parts: Table | str) -> None:
    """Print tables and sentences. What stands in brackets is text; a sentence is one line, however long."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, markup=False, highlight=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def write_json(path: Path | None, values: Any) -> None:
    """Write the values where a file was asked for: indented UTF-8, keys sorted, dates as YYYY-MM-DD."""
    if path:
        text = json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True, default=str)
        path.write_text(f"{text}\n", encoding="utf-8")
