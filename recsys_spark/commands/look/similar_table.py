"""What `recsys similar` prints: what went with an item on a night, with titles."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import functions as F
from rich.table import Table

from recsys_spark.commands.output import show, write_json
from recsys_spark.data.validity import known_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.tables import GOLD_SIMILAR, SILVER_ITEMS
from recsys_spark.names import SIMILAR_COMPONENTS
from recsys_spark.night import job_of
from recsys_spark.titles import clip, humanise


def show_similar(env: str, run_date: str, item: str, *, json_file: Path | None) -> None:
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
    titles = {row["item_id"]: _named(row["title"], row["category"]) for row in known}
    table = Table("", "goes with it", "item", "score", *SIMILAR_COMPONENTS, "carried by")
    table.title = f"{item}: {titles.get(item, '')}, {run_date}"
    for row in rows:
        other = row["similar_item_id"]
        parts = [f"{row['component_scores'][name]:.3f}" for name in SIMILAR_COMPONENTS]
        named = titles.get(other, "")
        table.add_row(str(row["rank"]), named, other, f"{row['score']:.4f}", *parts, row["source"])
    show(table)
    write_json(json_file, [{**row, "title": titles.get(row["similar_item_id"], "")} for row in rows])


def _named(title: str | None, category: str | None) -> str:
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
