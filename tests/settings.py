"""Sections of the settings as conf/base.toml has them, but for what a test changes."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any, TypeVar

from recsys_spark.config.sections import Campaign, Section, Source
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
    names = {"LakePlace": "lake", "ColdItems": "cold_items"}
    return section(**{**base()[names.get(section.__name__, section.__name__.lower())], **given})
