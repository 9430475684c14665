"""Settings: TOML in, frozen and complete objects out; an overlay may only change what base has."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys_spark.errors import ConfigError, did_you_mean

TASKS = ("repeats_allowed", "new_items_only")
COMPONENTS = ("als", "content", "history", "popularity", "trial")
# Sections whose keys are names that the user invents; everything else must exist in base.toml.
NAMED_SECTIONS = {"sources", "campaigns"}
# What a list does not depend on: where things lie and how long they are kept.
PLACES = ("lake", "output")

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


class Section(BaseModel):
    """Base of every section: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(Section):
    path: str


class Source(Section):
    """How one delivered table maps to ours; see conf/base.toml for each key's meaning."""

    kind: Literal["interactions", "items", "users", "audiences"]
    format: Literal["csv", "jsonl", "parquet"]
    path: str
    columns: dict[str, str | list[str]] = Field(default_factory=dict)
    constants: dict[str, str] = Field(default_factory=dict)
    names: list[str] = Field(default_factory=list)
    separator: str = ","
    encoding: str = "UTF-8"
    header: bool = True
    quote: str = '"'
    tags_separator: str = ""
    time_format: str = "iso"


class Clean(Section):
    event_types: list[str]
    max_id_length: int = Field(gt=0)
    max_text_length: int = Field(gt=0)
    max_abs_value: float = Field(gt=0)
    future_tolerance_days: int = Field(ge=0)


class Quality(Section):
    min_rows: int = Field(ge=0)
    max_rejected_share: float = Field(ge=0, le=1)
    max_unknown_item_share: float = Field(ge=0, le=1)
    max_untitled_share: float = Field(ge=0, le=1)
    max_age_days: int = Field(ge=0)


class Preferences(Section):
    half_life_days: float = Field(gt=0)
    cap: float = Field(gt=0)
    event_weights: dict[str, float]


class Als(Section):
    rank: int = Field(gt=0, le=1024)
    iterations: int = Field(gt=0)
    regularization: float = Field(gt=0)
    alpha: float = Field(gt=0)
    user_blocks: int = Field(gt=0)
    item_blocks: int = Field(gt=0)
    checkpoint_interval: int = Field(gt=0)
    seed: int


class Content(Section):
    fields: list[Literal["title", "category", "brand", "tags"]]
    ngram: int = Field(ge=1, le=3)
    min_items: int = Field(ge=1)
    max_terms: int = Field(gt=0)


class Popularity(Section):
    window_days: int = Field(gt=0)


class Blend(Section):
    reference_days: int = Field(gt=0)
    repeats_allowed: dict[str, float]
    new_items_only: dict[str, float]

    def weights(self, task: str) -> dict[str, float]:
        """Weight per component for the task; a component that is not named weighs nothing."""
        chosen = self.repeats_allowed if task == "repeats_allowed" else self.new_items_only
        return {component: float(chosen.get(component, 0.0)) for component in COMPONENTS}

    @model_validator(mode="after")
    def _known_components(self) -> Blend:
        for task in TASKS:
            for name in getattr(self, task):
                if name not in COMPONENTS:
                    raise ValueError(f"blend.{task} names {name!r}.{did_you_mean(name, COMPONENTS)}")
        return self


class Campaign(Section):
    """Who gets a list, how long it is, and whether it may hold what the user already had."""

    channel: str
    k: int = Field(gt=0, le=1000)
    repeat_allowed: bool
    audience: str = "everyone"
    brand_name: str = ""
    subject: str = ""
    unsubscribe_url: str = ""


class Evaluation(Section):
    window_days: int = Field(gt=0)
    k: list[int]
    bootstrap_samples: int = Field(gt=0)
    seed: int


class Gate(Section):
    min_user_share: float = Field(ge=0, le=1)
    max_short_list_share: float = Field(ge=0, le=1)
    max_first_slot_share: float = Field(ge=0, le=1)


class Delivery(Section):
    formats: list[Literal["jsonl", "html"]]
    max_mails: int = Field(ge=0)


class Settings(Section):
    env: str
    home: str
    lake: Place
    output: Place
    clean: Clean
    quality: Quality
    preferences: Preferences
    als: Als
    content: Content
    popularity: Popularity
    blend: Blend
    evaluation: Evaluation
    gate: Gate
    delivery: Delivery
    sources: dict[str, Source] = Field(default_factory=dict)
    campaigns: dict[str, Campaign] = Field(default_factory=dict)

    def meaning(self) -> dict[str, Any]:
        """All that can change a list: the settings without places."""
        values = self.model_dump(mode="json", exclude={*PLACES, "env", "home"})
        for source in values["sources"].values():
            source.pop("path")
        return values

    def fingerprint(self) -> str:
        """16 hex digits over `meaning()`: equal for equal configuration, wherever it runs."""
        return digest(self.meaning())


def digest(value: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def conf_dir() -> Path:
    """`RECSYS_CONF`, else ./conf, else the folder beside the checkout's package or inside the wheel."""
    named = os.environ.get("RECSYS_CONF")
    package = Path(str(resources.files("recsys_spark")))
    candidates = [Path(named)] if named else [Path("conf"), package.parent / "conf", package / "conf"]
    for candidate in candidates:
        if (candidate / "base.toml").is_file():
            return candidate.resolve()
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f"base.toml not found; looked in {looked}. Set RECSYS_CONF to the folder that holds it."
    )


def load_settings(env: str) -> Settings:
    """Settings of one environment: base.toml, then {env}.toml on top, then ${VARIABLES} filled in."""
    folder = conf_dir()
    base = _read_toml(folder / "base.toml")
    overlay_path = folder / f"{env}.toml"
    if not overlay_path.is_file():
        known = sorted(path.stem for path in folder.glob("*.toml") if path.stem != "base")
        raise ConfigError(
            f"no environment {env!r} in {folder}: have {', '.join(known)}.{did_you_mean(env, known)}"
        )
    merged = _overlaid(base, _read_toml(overlay_path), overlay_path.name)
    values = _expanded(merged, where=overlay_path.name)
    home = os.environ.get("RECSYS_HOME") or str(folder.parent)
    try:
        settings = Settings.model_validate({**values, "env": env, "home": home})
    except ValidationError as error:
        raise ConfigError(_first_fault(error, overlay_path.name)) from None
    return settings


def resolve_path(settings: Settings, path: str) -> str:
    """An absolute path or URI: relative ones start at `home`, `package:x/y` inside an installed package."""
    if path.startswith("package:"):
        return _package_path(path.removeprefix("package:"))
    if "://" in path or path.startswith(("file:", "/")):
        return path
    return str(Path(settings.home) / path)


def _package_path(inside: str) -> str:
    package, _, rest = inside.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the source package {package!r} is not installed. Next: pip install {package.replace('_', '-')}"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / rest)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}") from None


def _overlaid(base: dict[str, Any], overlay: Mapping[str, Any], file: str, at: str = "") -> dict[str, Any]:
    result = dict(base)
    for key, value in overlay.items():
        path = f"{at}{key}"
        if key not in base and path.split(".", maxsplit=1)[0] not in NAMED_SECTIONS:
            raise ConfigError(
                f"{file} sets keys base.toml does not have: ['{path}']."
                f"{did_you_mean(path, [f'{at}{name}' for name in base])}"
            )
        replaces_whole = at == "blend." or path == "preferences.event_weights"
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not replaces_whole:
            result[key] = _overlaid(base[key], value, file, f"{path}.")
        else:
            result[key] = value
    return result


def _expanded(value: Any, *, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, where=where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, where=where) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, where), value)
    return value


def _variable(match: re.Match[str], where: str) -> str:
    name, default = match["name"], match["default"]
    value = os.environ.get(name) or default
    if value is None:
        raise ConfigError(f"{where} needs the environment variable {name}. Next: export {name}=…")
    return value


def _first_fault(error: ValidationError, file: str) -> str:
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        got = "" if fault["type"] in {"missing", "extra_forbidden"} else f", got {fault.get('input')!r}"
        hint = _key_hint(fault["loc"]) if fault["type"] == "extra_forbidden" else ""
        faults.append(f"{place or 'settings'}: {fault['msg']}{got}{hint}")
    return f"{file} (on base.toml): " + "; ".join(faults)


def _key_hint(location: tuple[int | str, ...]) -> str:
    section: Any = Settings
    for part in location[:-1]:
        if isinstance(section, type) and issubclass(section, BaseModel) and part in section.model_fields:
            annotation = section.model_fields[str(part)].annotation
            section = getattr(annotation, "__args__", (None, annotation))[1] if annotation else None
    if isinstance(section, type) and issubclass(section, BaseModel):
        return did_you_mean(str(location[-1]), section.model_fields)
    return ""
