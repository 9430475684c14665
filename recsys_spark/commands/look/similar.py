"""What `recsys similar` prints: what went with an item on a night, with titles."""

from __future__ import annotations

import json
from pathlib import Path

from pyspark.sql import functions as F
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys_spark.config.sections import SIMILAR_COMPONENTS
from recsys_spark.data.validity import known_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.tables import GOLD_SIMILAR, SILVER_ITEMS
from recsys_spark.night import job_of
from recsys_spark.titles import clip, humanise


def show(env: str, run_date: str, item: str, *, json_file: Path | None) -> None:
    """Print the item's neighbours of the night, best first, and write them to `json_file` if named.

    ConfigError: the night has none of the item.
    """
    job = job_of(env, run_date)
    night = job.read(GOLD_SIMILAR).where(F.col("run_date") == F.lit(job.run_date))
    rows = [row.asDict() for row in night.where(F.col("item_id") == item).orderBy("rank").collect()]
    if not rows:
        raise ConfigError(_none(item, run_date, env, is_made=not night.isEmpty()))
    ids = [item, *(row["similar_item_id"] for row in rows)]
    versions = job.read(SILVER_ITEMS).where(F.col("item_id").isin(ids))
    known = known_on(versions, job.run_date, "item_id").select("item_id", "title", "category").collect()
    titles = {row["item_id"]: _told(row["title"], row["category"]) for row in known}
    table = Table("", "goes with it", "item", "score", *SIMILAR_COMPONENTS, "carried by")
    table.title = escape(f"{item}: {titles.get(item, '')}, {run_date}")
    for row in rows:
        found = row["similar_item_id"]
        parts = [f"{row['component_scores'][name]:.3f}" for name in SIMILAR_COMPONENTS]
        named = escape(titles.get(found, ""))
        table.add_row(str(row["rank"]), named, escape(found), f"{row['score']:.4f}", *parts, row["source"])
    Console().print(table)
    if json_file:
        content = [{**row, "title": titles.get(row["similar_item_id"], "")} for row in rows]
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
        json_file.write_text(text + "\n", encoding="utf-8")


def _told(title: str | None, category: str | None) -> str:
    return " · ".join(clip(humanise(text)) for text in (title, category) if text)


def _none(item: str, run_date: str, env: str, *, is_made: bool) -> str:
    if is_made:
        return (
            f"nothing goes with item {item!r} on {run_date}: it was not on sale, or shares no word, basket "
            "or user with what was. Next: check the id."
        )
    return (
        f"no similar items of {run_date}. Expected similar.k above 0 and the night's recommend stage. "
        f"Next: recsys run --env {env} --run-date {run_date} --from recommend --to recommend"
    )
