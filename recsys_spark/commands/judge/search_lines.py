"""What `recsys tune` prints and writes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from recsys_spark.commands.output import write_json
from recsys_spark.errors import ConfigError
from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.evaluation.tuning.search import Outcome, Tried, search
from recsys_spark.night import job_of


def show_search(
    env: str, run_date: str, *, trials: int, seconds: float | None, write: Path | None, json_file: Path | None
) -> None:
    """Search, one line a trial, then what was found, and how to use it.

    env: the environment, conf/ENV.toml.
    run_date: the night's date, YYYY-MM-DD.
    trials: how many the study has at the end, those of earlier searches included, from 1.
    seconds: after so many no further trial begins; None: whatever it takes.
    write: the new file that gets what is better, as TOML; None: it is printed.
    json_file: where the figures are written too, if anywhere.

    Raises ConfigError, before anything is tried, for a file `write` that is there already, or a file in no
    folder; else what the search raises.
    """
    if write and write.exists():
        raise ConfigError(
            f"--write {write}: the file is there already. Expected a new one: the overlay is merged by hand."
        )
    for option, path in (("--write", write), ("--json", json_file)):
        if path and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no folder {path.parent}. Next: make it.")
    job = job_of(env, run_date)
    outcome = search(job, trials=trials, seconds=seconds, tell=_tell)
    _say(*summary(outcome))
    if write:
        write.write_text(overlay(outcome), encoding="utf-8")
    if changed(outcome):
        where = f"the sections of {write}" if write else f"these sections\n\n{overlay(outcome)}\n"
        _say(f"To use it, merge {where} into conf/{env}.toml.")
    write_json(json_file, figures(outcome))


def summary(outcome: Outcome) -> list[str]:
    """What a person needs to know of the search, line by line."""
    study, best, present = outcome.study, outcome.best, outcome.present
    failed = sum(one.value is None for one in outcome.tried)
    window = f"models of {study.window.cutoff}, judged by {study.window.first} to {study.window.last}"
    chosen = f"NDCG@10 {best.value:.4f} in trial {best.number}, as configured {present.value:.4f}"
    proof = f"NDCG@10 {outcome.after:.4f}, as configured {outcome.before:.4f}"
    lines = [
        f"study   {study.name}: {len(outcome.tried)} trials, {failed} failed; {window}",
        f"search  {chosen} ({best.users:,} users that it chose by)",
        f"proof   {proof} ({outcome.unseen_users:,} users that it did not see)",
    ]
    lines += [f"        {name}: {sentence(interval)}" for name, interval in outcome.gains.items()]
    if not changed(outcome):
        return [*lines, "No trial was better: the present configuration stands."]
    if not outcome.is_proven:
        lines.append(
            "The gain is not proven: these users would as well be served by the present configuration."
        )
    return lines


def changed(outcome: Outcome) -> dict[str, int | float]:
    """The best parameters that are not what the configuration has."""
    present = outcome.present.parameters
    return {name: value for name, value in outcome.best.parameters.items() if value != present[name]}


def overlay(outcome: Outcome) -> str:
    """TOML of what the search would change, for the environment's file, with what speaks for it."""
    study, best, present = outcome.study, outcome.best, outcome.present
    run = f"recsys tune --env {study.job.settings.env} --run-date {study.job.run_date}"
    window = f"{study.window.first} to {study.window.last}, models of {study.window.cutoff}"
    unseen = f"{outcome.after:.4f}, as configured {outcome.before:.4f}"
    lines = [
        f"# {run}: trial {best.number} of {len(outcome.tried)}, {datetime.now(UTC):%Y-%m-%d}.",
        f"# NDCG@10 of the hybrid, mean of its tasks, {window}:",
        f"# {best.value:.4f}, as configured {present.value:.4f}, on the users that it was chosen by;",
        f"# {unseen}, on others: {sentence(outcome.gains['objective'])}.",
    ]
    for section, names in groupby(sorted(changed(outcome)), key=lambda name: name.split(".")[0]):
        lines += ["", f"[{section}]"]
        for name in names:
            was, value = present.parameters[name], best.parameters[name]
            lines.append(f"{name.split('.')[1]} = {value!r}  # as configured {was!r}")
    return "\n".join(lines) + "\n"


def figures(outcome: Outcome) -> dict[str, Any]:
    """The same for programs; intervals as [mean, low, high]."""
    study = outcome.study
    return {
        "study": study.name,
        "trained_to": str(study.window.cutoff),
        "judged_from": str(study.window.first),
        "judged_to": str(study.window.last),
        "trials": len(outcome.tried),
        "best": outcome.best.parameters,
        "present": outcome.present.parameters,
        "searched": {"best": outcome.best.value, "present": outcome.present.value},
        "unseen": {"best": outcome.after, "present": outcome.before},
        "gains": {name: [one.mean, one.low, one.high] for name, one in outcome.gains.items()},
    }


def sentence(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] (95 %)"


def _tell(trial: Tried) -> None:
    tried = " ".join(f"{name}={value}" for name, value in sorted(trial.parameters.items()))
    if trial.value is None:
        result = f"failed ({trial.error})"
    else:
        tasks = ", ".join(f"{task} {value:.4f}" for task, value in trial.ndcg.items())
        result = f"NDCG@10 {trial.value:.4f} ({tasks})"
    _say(f"trial {trial.number:>3}  {trial.seconds:6.1f} s  {result}  {tried}")


def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)
