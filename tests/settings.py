"""Sections of the settings as conf/base.toml has them, but for what a test changes."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Campaign, Section, Settings, Source
from tests.conftest import ROOT

S = TypeVar("S", bound=Section)


@cache
def base() -> dict[str, Any]:
    """conf/base.toml, its variables not filled in."""
    return tomllib.loads((ROOT / "conf" / "base.toml").read_text("utf-8"))


def a_source(**given: Any) -> Source:
    return Source(**{**base()["defaults"]["source"], **given})


def a_campaign(**given: Any) -> Campaign:
    return Campaign(**{**base()["defaults"]["campaign"], **given})


def with_defaults(section: type[S], **given: Any) -> S:
    """That section, `Als` of [als], with what is given and base.toml's values for the rest."""
    names = {"ColdItems": "cold_items"}
    return section(**{**base()[names.get(section.__name__, section.__name__.lower())], **given})


def changed(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """The settings with these values in the sections named, als={"rank": 3}; sources as they are given here."""
    update = {}
    for name, values in sections.items():
        section = getattr(settings, name)
        if isinstance(section, Section):
            assert values.keys() <= type(section).model_fields.keys(), f"{name} has no {sorted(values)}"
            update[name] = section.model_copy(update=values)
        else:
            update[name] = values
    return settings.model_copy(update=update)


def demo_in(root: Path, **sections: dict[str, Any]) -> Settings:
    """The demo's settings `changed`, with a lake and an output of their own in that folder."""
    places = {name: {"path": f"{root}/{name}", **sections.pop(name, {})} for name in ("lake", "output")}
    return changed(load_settings("demo"), **places, **sections)
