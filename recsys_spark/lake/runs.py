"""The run manifest: one run_id per run date, environment, inputs, configuration and code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, lru_cache, reduce
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recsys_spark.config.sections import Settings, digest
from recsys_spark.errors import ConfigError
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import BRONZE, OPS_RUNS
from recsys_spark.runtime.rows import frame_of


@dataclass(frozen=True)
class Run:
    """What a night is made of; an environment's equal inputs, configuration and code give an equal run_id."""

    run_id: str
    run_date: date
    env: str
    inputs: dict[str, int]
    input_hash: str
    config_hash: str
    code_hash: str

    def key_of(self, day: date) -> str:
        """10 hex digits: what is made as of a day from the run's inputs, with its settings and code."""
        return digest([day, self.input_hash, self.config_hash, self.code_hash])[:10]


@cache
def code_hash() -> str:
    """16 hex digits over the package's own Python sources, also from inside a wheel."""
    content = hashlib.sha256()
    for path, text in sorted(_sources(resources.files("recsys_spark"), "")):
        content.update(path.encode() + b"\0" + text + b"\0")
    return content.hexdigest()[:16]


def _sources(folder: Traversable, at: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in {"__pycache__", "conf"}:
            yield from _sources(entry, f"{at}{entry.name}/")
        elif entry.name.endswith((".py", ".j2")):
            yield f"{at}{entry.name}", entry.read_bytes()


@dataclass(frozen=True, order=True)
class Delivered:
    """A file that bronze holds: of which kind and source, where it lay, its content's key, since when, and
    which night took it."""

    kind: str
    source: str
    file: str
    content_hash: str
    modified_ms: int
    ingest_date: date


def delivered_files(lake: Lake) -> list[Delivered]:
    """All files that bronze holds: from the logs, but for a lake whose bronze names them in its rows."""
    return list(_delivered(lake, tuple(lake.state(table) for table in BRONZE.values())))


@lru_cache(maxsize=2)
def _delivered(lake: Lake, _state: tuple[str, ...]) -> tuple[Delivered, ...]:
    names = ("source", "source_file", "content_hash", F.unix_millis("delivered_at"), "ingest_date")
    per_kind = [
        (lake.partitions(table) if lake.is_as_declared(table) else lake.read(table)).select(
            F.lit(kind).alias("kind"), *names
        )
        for kind, table in BRONZE.items()
        if lake.exists(table)
    ]
    if not per_kind:
        return ()
    files = reduce(DataFrame.unionAll, per_kind).distinct().collect()
    return tuple(sorted(Delivered(*row) for row in files))


def known_inputs(lake: Lake) -> tuple[dict[str, int], str]:
    """Versions of the bronze tables, and a hash over the contents of all files in them."""
    versions = {table.name: lake.version(table) for table in BRONZE.values()}
    contents = {(file.kind, file.source, file.content_hash) for file in delivered_files(lake)}
    return {name: version for name, version in versions.items() if version >= 0}, digest(sorted(contents))


def open_run(lake: Lake, settings: Settings, run_date: date) -> Run:
    """The environment's run of this date over what bronze holds now; recorded once, found by a rerun."""
    inputs, input_hash = known_inputs(lake)
    config_hash = settings.fingerprint()
    # Two environments of one lake, however alike, stage their own lists.
    key = digest([run_date, settings.env, input_hash, config_hash, code_hash()])
    run = Run(
        run_id=f"{run_date:%Y%m%d}-{key[:10]}",
        run_date=run_date,
        env=settings.env,
        inputs=inputs,
        input_hash=input_hash,
        config_hash=config_hash,
        code_hash=code_hash(),
    )
    latest = _latest(lake, run_date, settings.env)
    if latest is None or latest.run_id != run.run_id:
        record_state(lake, run, "opened", settings_json=json.dumps(settings.meaning(), sort_keys=True))
    return run


def find_run(lake: Lake, run_date: date, env: str) -> Run:
    """The environment's run opened last for the date; ConfigError where the first stage has not run."""
    run = _latest(lake, run_date, env)
    if run is None:
        raise ConfigError(
            f"no run is open for {run_date} in {lake.root} by environment {env!r}. Expected the ingest stage "
            f"to have run. Next: recsys run --env {env} --run-date {run_date} --from ingest"
        )
    return run


def gold_owner(lake: Lake) -> str | None:
    """The environment to which the lake's gold belongs: the first that published there; None before."""
    published = lake.read(OPS_RUNS).where("state = 'published'").orderBy("recorded_at", "run_id")
    first = published.select("env").first()
    return None if first is None else str(first["env"])


def require_own_gold(lake: Lake, env: str, *, doing: str) -> None:
    """Raise ConfigError where the lake's gold belongs to another environment.

    doing: what is refused, and what becomes of what is there, as the beginning of the sentence.
    """
    owner = gold_owner(lake)
    if owner not in {None, env}:
        raise ConfigError(
            f"{doing}: gold in {lake.root} belongs to environment {owner!r}, the first that published there, "
            f"and this is {env!r}. Next: give conf/{env}.toml a lake.path of its own, or type --env {owner}"
        )


def env_of(lake: Lake, run_id: str) -> str | None:
    """The environment whose run it is; None for a run that the lake does not know."""
    found = lake.read(OPS_RUNS).where(F.col("run_id") == run_id).select("env").first()
    return None if found is None else str(found["env"])


def record_state(lake: Lake, run: Run, state: str, *, settings_json: str = "") -> None:
    """Append one row to ops.runs."""
    row = (
        run.run_id,
        run.run_date,
        run.env,
        state,
        run.inputs,
        run.input_hash,
        run.config_hash,
        run.code_hash,
        settings_json,
        datetime.now(UTC),
    )
    lake.append(OPS_RUNS, frame_of(lake.spark, [row], OPS_RUNS.schema))


def has_state(lake: Lake, run: Run, state: str) -> bool:
    """Whether ops.runs has the state of the run."""
    is_meant = (F.col("run_id") == run.run_id) & (F.col("state") == state)
    return not lake.read(OPS_RUNS).where(is_meant).isEmpty()


def _latest(lake: Lake, run_date: date, env: str) -> Run | None:
    of_env = (F.col("run_date") == F.lit(run_date)) & (F.col("env") == env)
    rows = lake.read(OPS_RUNS).where(of_env & (F.col("state") == "opened"))
    newest = rows.orderBy(F.desc("recorded_at"), "run_id").first()
    return None if newest is None else _run(newest)


def opened_runs(lake: Lake, env: str, *, before: date) -> list[tuple[Run, dict[str, Any]]]:
    """The environment's runs of earlier dates and the settings they had, the newest first; each once."""
    rows = (
        lake.read(OPS_RUNS)
        .where((F.col("env") == env) & (F.col("run_date") < F.lit(before)) & (F.col("state") == "opened"))
        .orderBy(F.desc("run_date"), F.desc("recorded_at"), "run_id")
    )
    by_id: dict[str, tuple[Run, dict[str, Any]]] = {}
    for row in rows.collect():
        by_id.setdefault(row["run_id"], (_run(row), json.loads(row["settings"] or "{}")))
    return list(by_id.values())


def _run(row: Row) -> Run:
    names = ("run_id", "run_date", "env", "inputs", "input_hash", "config_hash", "code_hash")
    return Run(**{name: row[name] for name in names})
