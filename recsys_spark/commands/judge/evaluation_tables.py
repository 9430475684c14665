"""What `recsys evaluate` prints and writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table as RichTable

from recsys_spark.commands.output import show, write_json
from recsys_spark.config.load import load_settings
from recsys_spark.errors import ConfigError, did_you_mean
from recsys_spark.evaluation import nights
from recsys_spark.evaluation.cold_start import K as COLD_K
from recsys_spark.evaluation.cold_start import judge_cold_start
from recsys_spark.evaluation.judgement import Judgement
from recsys_spark.evaluation.metrics.ratings import RatingJudgement
from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.evaluation.metrics.slices import BINS, HISTORY, ITEMS, RARE, SEGMENT
from recsys_spark.evaluation.public_split import K, judge_split
from recsys_spark.evaluation.sentences import verdict
from recsys_spark.evaluation.split_files import read_split
from recsys_spark.names import ALS, HEADLINE, RMSE, TASKS
from recsys_spark.night import job_of, session

SPLITS = ("time", "leave-last-one")
_SHOWN = ("precision", "recall", "f1", "ndcg", "map", "hit_rate", "coverage", "mean_popularity")
_ALSO = ("recall_capped", "mrr", "serendipity", "diversity", "novelty", "gini")
_SEGMENTS = 8  # of the largest are printed; JSON has all


def show_night(
    env: str, run_date: str, *, split: str, after: bool, baselines: bool, json_file: Path | None
) -> None:
    """Judge a night and print its tables.

    env: the environment, conf/ENV.toml.
    run_date: the night's date, YYYY-MM-DD.
    split: one of SPLITS: by the weeks before the run date, or by each user's last event.
    after: judge by the weeks after the run date instead.
    baselines: judge the baselines as well.
    json_file: where the figures are written too, if anywhere.

    Raises ConfigError for an unknown split, options that do not go together, or no date; else what judging
    the night raises.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"--split {split!r}: expected one of {', '.join(SPLITS)}.{did_you_mean(split, SPLITS)}"
        )
    if after and split != "time":
        raise ConfigError(f"--after judges by the weeks after the run date: it has no --split {split}.")
    if not run_date:
        raise ConfigError("--run-date is missing: the night to judge. Only --train and --test do without.")
    job = job_of(env, run_date)
    if after:
        judgement = nights.judge_by_weeks_after(job, with_baselines=baselines)
    elif split == "time":
        judgement = nights.judge_by_window(job, with_baselines=baselines)
    else:
        judgement = nights.judge_by_last_one(job, with_baselines=baselines)
    _print_judgement(judgement)
    write_json(json_file, judgement.figures())


def show_cold_start(env: str, run_date: str, *, json_file: Path | None) -> None:
    """Judge items whose every event is withheld, print the table, and write {figure: {model: …}}."""
    if not run_date:
        raise ConfigError("--run-date is missing: the night whose items are withheld.")
    cold_start = judge_cold_start(job_of(env, run_date))
    title = (
        f"{cold_start.items:,} items without their events in a catalogue of {cold_start.catalogue:,}, "
        f"wanted by {cold_start.users:,} users; the rest is judged by {cold_start.rest_users:,}"
    )
    heads = (
        f"recall@{COLD_K} of withheld items (95 %)",
        "times chance",
        "ndcg@10 of the rest without",
        "gained with withheld items (95 %)",
        f"recall@{COLD_K} of the rest gained (95 %)",
    )
    table = RichTable("model", *heads, title=title)
    for model, recall in cold_start.recall.items():
        before, gain = cold_start.rest[model]
        bounds = [f"{value / cold_start.random:.1f}" for value in (recall.mean, recall.low, recall.high)]
        table.add_row(
            model,
            f"{recall.mean:.4f} [{recall.low:.4f}, {recall.high:.4f}]",
            f"{bounds[0]} [{bounds[1]}, {bounds[2]}]",
            f"{before:.4f}",
            _signed(gain),
            _signed(cold_start.rest_recall[model]),
        )
    show(table, f"by chance: {cold_start.random:.4f}")
    values = {
        model: {f"recall@{COLD_K}": one.mean, "low": one.low, "high": one.high}
        for model, one in cold_start.recall.items()
    }
    rest = {
        model: {HEADLINE: before, "gain": gain.mean, "low": gain.low, "high": gain.high}
        for model, (before, gain) in cold_start.rest.items()
    }
    for model, gain in cold_start.rest_recall.items():
        rest[model] |= {f"recall@{COLD_K} gain": gain.mean}
    write_json(json_file, {"random": cold_start.random, "cold_items": values, "rest": rest})


def show_split(env: str, *, train: Path | None, test: Path | None, form: str, json_file: Path | None) -> None:
    """Judge ALS and baselines on a train and a test file, and print recall@20 and NDCG@20.

    env: the environment whose settings train ALS, conf/ENV.toml.
    train: the file of pairs to learn from.
    test: the file of pairs to be judged by.
    form: of both files, one of `split_files.FORMATS`.
    json_file: where the figures are written too, if anywhere.

    Raises ConfigError where a file is not named or cannot be taken, or holds too many pairs for the driver.
    """
    if train is None or test is None:
        raise ConfigError(
            f"--train and --test go together: --{'test' if test is None else 'train'} is missing."
        )
    settings = load_settings(env)
    split = read_split(train, test, form=form)  # before Spark starts: a bad file is told at once
    judgement = judge_split(
        session("recsys", settings), split, als=settings.als, seed=settings.evaluation.seed
    )
    title = (
        f"{judgement.train_pairs:,} pairs of {judgement.items:,} items to learn from, "
        f"{judgement.test_pairs:,} pairs of {judgement.users:,} users to judge by; items of train are masked"
    )
    leaders = [name for name in dict.fromkeys((ALS, judgement.best)) if name in judgement.leads]
    heads = [f"{name} leads ndcg@{K} by (95 %)" for name in leaders]
    figures = (f"recall@{K} (of n)", f"recall@{K} (of min(K, n))", f"ndcg@{K}")
    table = RichTable("model", *figures, *heads, title=title)
    for model, values in sorted(
        judgement.values.items(), key=lambda one: (-one[1].get(f"ndcg@{K}", 0.0), one[0])
    ):
        shown = [values.get(f"{name}@{K}", 0.0) for name in ("recall", "recall_capped", "ndcg")]
        leads = [_signed(judgement.leads[leader].get(model)) for leader in leaders]
        table.add_row(model, *[f"{value:.4f}" for value in shown], *leads)
    show(
        table,
        verdict(judgement.leads[judgement.best], leader=judgement.best, of=f"NDCG@{K}"),
        *judgement.notes,
    )
    write_json(json_file, judgement.figures())


def _print_judgement(judgement: Judgement) -> None:
    for task in (task for task in TASKS if task in judgement.values):
        users = judgement.users.get(task, 0)
        span = f"{judgement.judged_from} to {judgement.judged_to}"
        if judgement.judged_from == judgement.judged_to:
            span = f"each user's last event up to {judgement.judged_to}"
        leads = judgement.differences.get(task, {})
        main = _figures(judgement, task, _SHOWN, f"{task}: {span}, {users:,} users", leads)
        show(main, *([verdict(leads)] if leads else []), *judgement.weights.get(task, ()))
        show(_figures(judgement, task, _ALSO, f"{task}: what else there is to a list"))
        show(_by_history(judgement, task), *_by_segment(judgement, task))
    if judgement.ratings:
        show(*_ratings(judgement.ratings))
    show(*judgement.notes)


def _ratings(ratings: RatingJudgement) -> tuple[RichTable, str]:
    table = RichTable("model", "RMSE", "MAE", title="ratings")
    for model, values in sorted(ratings.values.items(), key=lambda one: (one[1][RMSE], one[0])):
        table.add_row(model, f"{values['rmse']:.4f}", f"{values['mae']:.4f}")
    sentence = (
        f"{ratings.pairs:,} ratings of pairs that were not rated before; {ratings.unknown:,} further ones "
        "are of users or items without factors and are not predicted."
    )
    return table, sentence


def _figures(
    judgement: Judgement,
    task: str,
    names: tuple[str, ...],
    title: str,
    leads: Mapping[str, Interval] | None = None,
) -> RichTable:
    last = [] if leads is None else ["hybrid leads NDCG@10 by (95 %)"]
    table = RichTable("model", *[f"{name}@10" for name in names], *last, title=title)
    for model in judgement.models():
        values = judgement.values[task].get(model, {})
        cells = [f"{values[f'{name}@10']:.4f}" if f"{name}@10" in values else "-" for name in names]
        table.add_row(model, *cells, *([] if leads is None else [_signed(leads.get(model))]))
    return table


def _signed(lead: Interval | None) -> str:
    return f"{lead.mean:+.4f} [{lead.low:+.4f}, {lead.high:+.4f}]" if lead else ""


def _by_history(judgement: Judgement, task: str) -> RichTable:
    """NDCG@10 by bins of history and by rare items; below it the hybrid's lead in each bin."""
    slices = judgement.sliced.get(task, {})
    bins, rare = slices.get(HISTORY, {}), slices.get(ITEMS, {})
    columns = [(f"{name} items", *bins[name]) for _, name in BINS if name in bins]
    columns += [(f"wanted items {name}", *rare[name]) for _, name in RARE if name in rare]
    table = _sliced(judgement, columns, f"{task}: NDCG@10 by what users had before")
    leads = judgement.leads.get(task, {})
    if leads:
        best = [leads.get(name) for _, name in BINS if name in bins]
        # The bounds in a line of their own: seven such columns are as much as a page is wide.
        cells = [f"{lead[0]}\n{_signed(lead[1])}".replace(" [", "\n[") if lead else "" for lead in best]
        table.add_section()
        table.add_row("hybrid leads\nthe best\ncomponent", *cells)
    return table


def _by_segment(judgement: Judgement, task: str) -> list[RichTable]:
    """NDCG@10 of the largest segments; no table where all users are of one."""
    segments = judgement.sliced.get(task, {}).get(SEGMENT, {})
    if len(segments) < 2:
        return []
    largest = sorted(segments, key=lambda name: (-segments[name][0], name))[:_SEGMENTS]
    title = f"{task}: NDCG@10 by segment ({len(largest)} of {len(segments)})"
    return [_sliced(judgement, [(name, *segments[name]) for name in largest], title)]


def _sliced(judgement: Judgement, columns: list[tuple[str, int, dict[str, float]]], title: str) -> RichTable:
    table = RichTable("model", *[f"{name}\n({users:,} users)" for name, users, _ in columns], title=title)
    for model in judgement.models():
        table.add_row(model, *[f"{of[model]:.4f}" if model in of else "-" for _, _, of in columns])
    return table
