"""Which stage runs, and for how long: one line on a terminal that goes away with the stage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Watched = Callable[[str], AbstractContextManager[None]]


@contextmanager
def watching(stages: Sequence[str]) -> Iterator[Watched]:
    """What shows a stage while it runs. On a pipe nothing does: there the stages' own lines are enough."""
    if not sys.stdout.isatty():
        yield lambda _: nullcontext()
        return
    console = Console(highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Spark starts", total=len(stages))

        @contextmanager
        def watched(stage: str) -> Iterator[None]:
            progress.reset(task, completed=stages.index(stage), description=stage)
            yield

        yield watched
