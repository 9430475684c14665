"""The `recsys` command: a table of contents. Each command is a module of `recsys_spark.commands`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from recsys_spark import __version__
from recsys_spark.commands.judge.evaluate import evaluate
from recsys_spark.commands.judge.tune import tune
from recsys_spark.commands.look.report import report
from recsys_spark.commands.look.runs import diff_runs, list_runs
from recsys_spark.commands.look.similar import similar
from recsys_spark.commands.repair.doctor import doctor
from recsys_spark.commands.repair.quarantine import quarantine
from recsys_spark.commands.run.demo import demo
from recsys_spark.commands.run.night import run


def version() -> None:
    """Print the version."""
    print(__version__)


# By group: the command, and an example of it.
Commands = dict[Callable[..., None], str]
RUN: Commands = {run: "--env demo --run-date 2017-12-03 --from recommend", demo: ""}
LOOK: Commands = {
    report: "--env demo --run-date 2017-12-03",
    similar: "--env demo --run-date 2017-12-03 --item 1082185",
    version: "",
}
JUDGE: Commands = {
    evaluate: "--env demo --run-date 2017-12-03 --baselines --json figures.json",
    tune: "--env demo --run-date 2017-12-03 --trials 40 --write better.toml",
}
REPAIR: Commands = {quarantine: "--env demo --samples 5", doctor: "--env demo"}
GROUPS: dict[str, Commands] = {
    "Run a night": RUN,
    "Look at what it left": LOOK,
    "Judge and improve": JUDGE,
    "Repair": REPAIR,
}
RUNS: dict[str, tuple[Callable[..., None], str]] = {
    "list": (list_runs, "--env demo"),
    "diff": (diff_runs, "data/lake other/lake --env demo --run-date 2017-12-03"),
}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Nightly batch recommendations on Apache Spark.\n\n"
    "Exit codes: 0 done, 2 wrong use or configuration, 3 input rejected by a quality gate, "
    "4 output rejected by the publish gate, 1 anything else.",
    epilog="Begin with: recsys demo. Then: recsys COMMAND --help",
)
runs_app = typer.Typer(no_args_is_help=True, help="The nights that the lake knows.")
for name, (command, example) in RUNS.items():
    runs_app.command(name, epilog=f"Example: recsys runs {name} {example}")(command)
for group, commands in GROUPS.items():
    for command, example in commands.items():
        epilog = f"Example: recsys {command.__name__} {example}".rstrip()
        app.command(rich_help_panel=group, epilog=epilog)(command)
app.add_typer(runs_app, name="runs", rich_help_panel="Look at what it left")


def main() -> None:
    """The console entry point."""
    app()
