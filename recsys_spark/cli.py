"""The `recsys` command."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

from recsys_spark import __version__
from recsys_spark.config.sections import Settings, load_settings, resolve_path
from recsys_spark.errors import ConfigError
from recsys_spark.night import STAGES, guarded, job_of, parse_date, run_night, session

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Nightly batch recommendations on Apache Spark.\n\n"
    "Exit codes: 0 done, 2 wrong use or configuration, 3 input rejected by a quality gate, "
    "4 output rejected by the publish gate, 1 anything else.",
)
runs_app = typer.Typer(no_args_is_help=True, help="The nights that the lake knows.")
app.add_typer(runs_app, name="runs")

Env = Annotated[str, typer.Option(help="The environment: conf/ENV.toml on top of conf/base.toml.")]
RunDate = Annotated[str, typer.Option(help="The night's date, YYYY-MM-DD.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as well.")]


def main() -> None:
    """The console entry point."""
    app()


def _exit(action: Callable[[], None]) -> None:
    code = guarded(action)
    if code:
        raise typer.Exit(code)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def doctor(env: Env = "demo") -> None:
    """Check Python, Java, JARs, BLAS, memory, disk and the lake, and say what to type."""

    def action() -> None:
        from recsys_spark.commands.repair.doctor import examine  # noqa: PLC0415

        findings = examine(load_settings(env))
        table = RichTable("", "check", "found", "what to type")
        for finding in findings:
            mark = "ok" if finding.is_ok else ("--" if finding.is_optional else "NO")
            table.add_row(mark, finding.name, finding.found, "" if finding.is_ok else finding.advice)
        Console().print(table)
        faults = [finding for finding in findings if not finding.is_ok and not finding.is_optional]
        if faults:
            # Again in one line each: a narrow table breaks what is to be typed.
            told = [f"{fault.name}: {fault.advice}" if fault.advice else fault.name for fault in faults]
            raise ConfigError("\n".join(["not ready.", *told]))

    _exit(action)


@app.command()
def demo(
    prepare_only: Annotated[
        bool, typer.Option(help="Only fill the landing folder with input files.")
    ] = False,
) -> None:
    """Run a complete night on a year of real retail data and judge it by the four weeks after."""

    def action() -> None:
        from recsys_spark.commands.run.demo import RUN_DATE, prepare  # noqa: PLC0415

        settings = load_settings("demo")
        folder = prepare(settings)
        print(f"input   {folder}", flush=True)
        if prepare_only:
            return
        _night(settings, parse_date(RUN_DATE), STAGES[0], STAGES[-1])

    _exit(action)


@app.command()
def run(
    run_date: RunDate,
    env: Env = "prod",
    first: Annotated[str, typer.Option("--from", help="First stage.")] = STAGES[0],
    last: Annotated[str, typer.Option("--to", help="Last stage.")] = STAGES[-1],
    skip: Annotated[
        list[str] | None, typer.Option(help="A stage to leave out, such as evaluate; may be given again.")
    ] = None,
) -> None:
    """Run the stages of one night, from ingest to deliver."""
    _exit(lambda: _night(load_settings(env), parse_date(run_date), first, last, skip or ()))


def _night(settings: Settings, run_date: date, first: str, last: str, skip: Collection[str] = ()) -> None:
    from recsys_spark.evaluation.report.gather import make_report, report_path  # noqa: PLC0415
    from recsys_spark.lake.job import Job  # noqa: PLC0415

    started = time.monotonic()
    spark = session("recsys", settings)
    job = Job(spark, settings, run_date)
    try:
        peak_gb = run_night(settings, run_date, first=first, last=last, skip=skip, spark=spark)
    finally:
        if _was_judged(job):
            make_report(job)
    minutes = (time.monotonic() - started) / 60
    folder = job.output / str(run_date)
    print(f"night   {minutes:.1f} minutes, peak memory {peak_gb:.1f} GB (driver, JVM and Python workers)")
    print(f"lake    {job.lake.root}")
    if report_path(job).exists():
        print(f"report  {report_path(job)}")
    if (folder / "mails").exists():
        print(f"mails   {folder / 'mails'}")
        print(f"exports {folder / 'exports'}")


def _was_judged(job: Any) -> bool:
    """Whether the night got far enough for a report: its lists were staged."""
    from recsys_spark.errors import RecsysError  # noqa: PLC0415
    from recsys_spark.lake.tables import GOLD_STAGED  # noqa: PLC0415

    try:
        return bool(job.lake.has_partition(GOLD_STAGED, run_id=job.run.run_id))
    except RecsysError:
        return False


@app.command()
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
        from recsys_spark.commands.judge.evaluate import show_cold_start, show_night, show_split  # noqa: PLC0415

        if train or test:
            show_split(env, train=train, test=test, form=form, json_file=json_file)
        elif cold_items:
            show_cold_start(env, run_date, json_file=json_file)
        else:
            show_night(env, run_date, split=split, after=after, baselines=baselines, json_file=json_file)

    _exit(action)


@app.command()
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
        from recsys_spark.commands.judge.tune import show  # noqa: PLC0415

        show(env, run_date, trials=trials, seconds=seconds, write=write, json_file=json_file)

    _exit(action)


@app.command()
def report(run_date: RunDate, env: Env = "prod") -> None:
    """Write the night's HTML report again from what the lake holds."""

    def action() -> None:
        from recsys_spark.evaluation.report.gather import make_report  # noqa: PLC0415

        print(make_report(job_of(env, run_date)))

    _exit(action)


@app.command()
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
    from recsys_spark.commands.repair.quarantine import discarded, reprocessed, show  # noqa: PLC0415

    if discard and reprocess:
        raise typer.BadParameter("--discard leaves a file out, --reprocess takes rows back: one at a time.")
    if discard:
        _exit(lambda: discarded(env, discard, json_file))
    elif reprocess:
        _exit(lambda: reprocessed(env, run_date, json_file))
    else:
        _exit(lambda: show(env, run_date, samples=samples, is_masked=not unmasked, json_file=json_file))


@app.command()
def similar(
    item: Annotated[str, typer.Option(help="The item's id.")],
    run_date: RunDate,
    env: Env = "prod",
    json_file: Json = None,
) -> None:
    """Show what goes with an item, with titles and with what speaks for it."""
    from recsys_spark.commands.look.similar import show  # noqa: PLC0415

    _exit(lambda: show(env, run_date, item, json_file=json_file))


@runs_app.command("list")
def runs_list(env: Env = "prod") -> None:
    """All runs, newest first, with their state."""

    def action() -> None:
        from recsys_spark.lake.store import Lake  # noqa: PLC0415
        from recsys_spark.lake.tables import OPS_RUNS  # noqa: PLC0415

        settings = load_settings(env)
        lake = Lake(session("recsys", settings), resolve_path(settings, settings.lake.path))
        table = RichTable("recorded at (UTC)", "run date", "run", "state")
        for row in lake.read(OPS_RUNS).orderBy("recorded_at", ascending=False).limit(100).collect():
            table.add_row(
                f"{row['recorded_at']:%Y-%m-%d %H:%M:%S}", str(row["run_date"]), row["run_id"], row["state"]
            )
        Console().print(table)

    _exit(action)


@runs_app.command("diff")
def runs_diff(
    left: Annotated[str, typer.Argument(help="Root of one lake.")],
    right: Annotated[str, typer.Argument(help="Root of the other.")],
    run_date: RunDate,
    env: Env = "prod",
    at_least: Annotated[
        float, typer.Option(help="Share of lists that must be equal, or exit code 1.")
    ] = 0.99,
) -> None:
    """Compare the published lists of one night in two lakes, slot by slot."""

    def action() -> None:
        from recsys_spark.evaluation.comparison import compare_lists  # noqa: PLC0415
        from recsys_spark.lake.store import Lake  # noqa: PLC0415

        spark = session("recsys", load_settings(env))
        found = compare_lists(Lake(spark, left), Lake(spark, right), run_date=parse_date(run_date))
        print(
            f"{found.equal:,} of {found.lists:,} lists hold the same items in the same order "
            f"({found.share:.2%}); {found.same_items:,} the same items in any order; "
            f"largest difference of a score in a common slot {found.largest_difference:.2e}"
        )
        if found.share < at_least:
            raise ConfigError(f"expected at least {at_least:.0%} equal lists.")

    _exit(action)
