"""What `recsys evaluate` prints and writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from recsys_spark.config import COMPONENTS, TASKS, load_settings
from recsys_spark.errors import ConfigError, did_you_mean
from recsys_spark.evaluation.backtest import Judgement
from recsys_spark.evaluation.cold_start import K as COLD_K
from recsys_spark.evaluation.cold_start import judge_cold_start
from recsys_spark.evaluation.public_split import K, judge_split
from recsys_spark.evaluation.slices import BINS
from recsys_spark.evaluation.split_files import read_split
from recsys_spark.night import job_of, session
from recsys_spark.stages import evaluate

SPLITS = ("time", "leave-last-one")
_SHOWN = ("precision", "recall", "f1", "ndcg", "map", "hit_rate", "coverage", "mean_popularity")


def show_night(
    env: str, run_date: str, *, split: str, after: bool, baselines: bool, json_file: Path | None
) -> None:
    """Judge a night and print its tables; ConfigError for options that do not go together."""
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
        judgement = evaluate.after(job, with_baselines=baselines)
    elif split == "time":
        judgement = evaluate.backtest(job, with_baselines=baselines)
    else:
        judgement = evaluate.last_one(job, with_baselines=baselines)
    _print_judgement(judgement)
    _write(json_file, judgement.values)


def show_cold_start(env: str, run_date: str, *, json_file: Path | None) -> None:
    """Judge items whose every event is withheld, print the table, and write {figure: {model: …}}."""
    if not run_date:
        raise ConfigError("--run-date is missing: the night whose items are withheld.")
    found = judge_cold_start(job_of(env, run_date))
    title = (
        f"{found.items:,} items without their events in a catalogue of {found.catalogue:,}, wanted by "
        f"{found.users:,} users; the rest is judged by {found.rest_users:,}"
    )
    heads = (f"recall@{COLD_K} of withheld items (95 %)", "times chance", "ndcg@10 of the rest without")
    table = RichTable("model", *heads, "gained with withheld items (95 %)", title=title)
    for model, recall in found.recall.items():
        before, gain = found.rest[model]
        bounds = [f"{value / found.random:.1f}" for value in (recall.mean, recall.low, recall.high)]
        table.add_row(
            model,
            f"{recall.mean:.4f} [{recall.low:.4f}, {recall.high:.4f}]",
            f"{bounds[0]} [{bounds[1]}, {bounds[2]}]",
            f"{before:.4f}",
            f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
        )
    _print(table, f"by chance: {found.random:.4f}")
    values = {
        model: {f"recall@{COLD_K}": one.mean, "low": one.low, "high": one.high}
        for model, one in found.recall.items()
    }
    rest = {
        model: {"ndcg@10": before, "gain": gain.mean, "low": gain.low, "high": gain.high}
        for model, (before, gain) in found.rest.items()
    }
    _write(json_file, {"random": found.random, "cold_items": values, "rest": rest})


def show_split(env: str, *, train: Path | None, test: Path | None, form: str, json_file: Path | None) -> None:
    """Judge ALS and baselines on a train and a test file, and print recall@20 and NDCG@20."""
    if train is None or test is None:
        raise ConfigError(
            f"--train and --test go together: --{'test' if test is None else 'train'} is missing."
        )
    settings = load_settings(env)
    split = read_split(train, test, form=form)  # before Spark starts: a bad file is told at once
    found = judge_split(session("recsys", settings), split, als=settings.als, seed=settings.evaluation.seed)
    title = (
        f"{found.train_pairs:,} pairs of {found.items:,} items to learn from, "
        f"{found.test_pairs:,} pairs of {found.users:,} users to judge by; items of train are masked"
    )
    table = RichTable("model", f"recall@{K} (of n)", f"recall@{K} (of min(K, n))", f"ndcg@{K}", title=title)
    for model, values in sorted(
        found.values.items(), key=lambda one: (-one[1].get(f"ndcg@{K}", 0.0), one[0])
    ):
        shown = [values.get(f"{name}@{K}", 0.0) for name in ("recall", "recall_capped", "ndcg")]
        table.add_row(model, *[f"{value:.4f}" for value in shown])
    _print(table, *found.notes)
    _write(json_file, found.values)


def _print_judgement(judgement: Judgement) -> None:
    for task in TASKS:
        users = judgement.users.get(task, 0)
        span = f"{judgement.judged_from} to {judgement.judged_to}"
        if judgement.judged_from == judgement.judged_to:
            span = f"each user's last event up to {judgement.judged_to}"
        title = f"{task}: {span}, {users:,} users"
        table = RichTable(
            "model", *[f"{name}@10" for name in _SHOWN], "hybrid leads NDCG@10 by (95 %)", title=title
        )
        models = ("hybrid", *COMPONENTS, *judgement.baselines)
        for model in models:
            values = judgement.values[task].get(model, {})
            interval = judgement.differences.get(task, {}).get(model)
            lead = f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]" if interval else ""
            cells = [f"{values[f'{name}@10']:.4f}" if f"{name}@10" in values else "-" for name in _SHOWN]
            table.add_row(model, *cells, lead)
        _print(table, _by_history(judgement, task, models))
    _print(*judgement.notes)


def _by_history(judgement: Judgement, task: str, models: tuple[str, ...]) -> RichTable:
    bins = [
        (name, *judgement.sliced[task][name]) for _, name in BINS if name in judgement.sliced.get(task, {})
    ]
    heads = [f"{name} items\n({users:,} users)" for name, users, _ in bins]
    table = RichTable("model", *heads, title=f"{task}: NDCG@10 by what users had before")
    for model in models:
        table.add_row(model, *[f"{values[model]:.4f}" if model in values else "-" for _, _, values in bins])
    return table


def _print(*parts: RichTable | str) -> None:
    console = Console(width=165 if not sys.stdout.isatty() else None)
    for part in parts:
        console.print(part, markup=False)  # what stands in brackets is text


def _write(json_file: Path | None, values: object) -> None:
    if json_file:
        json_file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
