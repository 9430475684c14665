"""The night as one HTML page: nothing to load from anywhere, no script, made to be looked at.

Whatever comes from data passes `clip` (one line, bounded) and Jinja's autoescape; the page forbids itself
every external resource by its content security policy.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from recsys_spark.evaluation.report import charts, charts_models, views
from recsys_spark.evaluation.report.contents import (
    FunnelStep,
    HistoryLine,
    LongTail,
    NightReport,
    QualityRow,
    Slot,
    StageRow,
    UserStory,
)
from recsys_spark.evaluation.report.svg import duration, percent
from recsys_spark.titles import clip, humanise

__all__ = [
    "FunnelStep",
    "HistoryLine",
    "LongTail",
    "NightReport",
    "QualityRow",
    "Slot",
    "StageRow",
    "UserStory",
    "render_report",
    "write_report",
]


def write_report(night: NightReport, path: Path | str) -> Path:
    """Render the night to `path`. The file appears whole or not at all, also while someone reads it."""
    target = Path(path)
    page = render_report(night)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
        part.chmod(0o644)  # mkstemp's 0600 would hide the report from those it is for
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def render_report(night: NightReport) -> str:
    """The page, a function of `night` alone: no clock, no host, so equal nights give equal bytes."""
    components = sorted({name for user in night.users for slot in user.slots for name in slot.components})
    classes = charts.colour_classes(components)
    return _template().render(
        night=night,
        figures=views.key_figures(night),
        tone=views.verdict_tone(night.verdict),
        timeline=views.timeline(night) if night.stages else None,
        funnel=views.funnel(night) if night.funnel else None,
        events=views.events(night) if charts.event_kinds(night.events_per_day) else None,
        event_span=views.event_span(night),
        kinds=charts.event_kinds(night.events_per_day),
        tail=views.tail(night.long_tail),
        tasks=[views.task(night, name) for name in night.metrics],
        classes=classes,
        stories=[views.story(user, classes) for user in night.users],
        quality=sorted(night.quality, key=lambda row: row.is_success),
        settings=list(views.flattened(night.settings)),
        is_safe_link=views.is_safe_link,
    )


@functools.cache
def _template() -> Template:
    env = Environment(
        loader=PackageLoader("recsys_spark.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "clip": clip,
        "count": views.count,
        "day": views.day,
        "duration": duration,
        "metric": charts_models.readable_or_dash,
        "percent": percent,
        "product": lambda title: clip(humanise(clip(title, 400)), 70),
        "spoken": views.spoken,
    }
    return env.get_template("report.html.j2")
