"""From TOML files to settings: an overlay may only change what base.toml has."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from recsys_spark.config.sections import Settings
from recsys_spark.errors import ConfigError, did_you_mean

# Sections whose keys are names that the user invents; everything else must exist in base.toml. Of what one of
# them leaves out, [defaults.…] of base.toml speaks.
NAMED_SECTIONS = {"sources": "source", "campaigns": "campaign"}
# Sections that had another name, and are read on by it.
FORMER_NAMES = {"delivery": "sending"}
# Tables that an overlay replaces as a whole: what it does not name is not there.
_WHOLE = {"preferences.event_weights", "preferences.negative"}
_WHOLE_WITHIN = {"blend.", "defaults.source."}

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


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
    overlay = _by_present_names(_read_toml(overlay_path), overlay_path.name)
    merged = _with_defaults(_overlaid(base, overlay, overlay_path.name))
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


def require_sources(settings: Settings) -> None:
    """ConfigError where a night would have nothing to read."""
    if not settings.sources:
        raise ConfigError(
            f"conf/{settings.env}.toml has no [sources.…]: a night of {settings.env!r} has nothing to read. "
            "Expected at least one source of kind 'interactions' and one of kind 'items'. "
            f"Next: copy the example of docs/quickstart.md into conf/{settings.env}.toml; "
            "or try the demo: recsys demo"
        )


def _by_present_names(overlay: dict[str, Any], file: str) -> dict[str, Any]:
    """The overlay with its sections under their present names; a notice on standard error of each other."""
    named = dict(overlay)
    for former, present in FORMER_NAMES.items():
        if former in named and present in named:
            raise ConfigError(f"{file} has both [{former}] and [{present}]: one section by its two names.")
        if former in named:
            print(  # noqa: T201 - a notice for people
                f"recsys: {file}: [{former}] is called [{present}] now; it is read as that.", file=sys.stderr
            )
            named[present] = named.pop(former)
    return named


def _with_defaults(merged: dict[str, Any]) -> dict[str, Any]:
    """Every source and campaign with what base.toml says of those that leave it out."""
    values = {key: value for key, value in merged.items() if key != "defaults"}
    for section, default in NAMED_SECTIONS.items():
        defaults = merged["defaults"][default]
        given = values.get(section, {})
        if isinstance(given, dict):
            values[section] = {
                name: {**defaults, **own} if isinstance(own, dict) else own for name, own in given.items()
            }
    return values


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
        replaces_whole = at in _WHOLE_WITHIN or path in _WHOLE
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
        # A whole section is no help, and may hold what was refused because it is secret.
        is_told = fault["type"] not in {"missing", "extra_forbidden"}
        is_plain = is_told and not isinstance(fault["input"], dict)
        got = f", got {fault['input']!r}" if is_plain else ""
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
