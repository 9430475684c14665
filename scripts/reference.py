"""The reference pages, made of what they are about: `reference.py` writes them, `--check` compares.

commands.md from the `recsys` command, settings.md from conf/base.toml and the sections' types, tables.md from
the declarations of the tables. What a page says is changed there, and then made again.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

from recsys_spark.cli import app
from recsys_spark.config.sections import Campaign, Settings, Source
from recsys_spark.lake import tables
from recsys_spark.lake.meanings import COLUMNS, ROWS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "*This page is made by `make docs`; a test compares it with the code.*"


def escaped(text: str) -> str:
    """For a cell of a table: one line, no bars, no tags."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cell for cell in row)} |" for row in rows),
        "",
    ]


# --- commands ----------------------------------------------------------------------------------


def commands_page() -> str:
    root = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "For whoever types `recsys`: every command, its options and an example.",
        "",
        MADE,
        "",
    ]
    lines += ["Exit codes: see [operations](../operations.md#exit-codes-logs-and-traces).", ""]
    group = ""
    for names, command in sorted(_commands(root, ()), key=lambda one: _order(root, one[0])):
        panel = _panel(root, names)
        if panel != group:
            group = panel
            lines += [f"## {group}", ""]
        lines += _command(names, command)
    return "\n".join(lines).rstrip() + "\n"


def _commands(command: Any, names: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        return [(names, command)]
    return [found for name, sub in command.commands.items() for found in _commands(sub, (*names, name))]


def _panel(root: Any, names: tuple[str, ...]) -> str:
    return str(root.commands[names[0]].rich_help_panel)


def _order(root: Any, names: tuple[str, ...]) -> tuple[int, int]:
    panels = list(dict.fromkeys(str(sub.rich_help_panel) for sub in root.commands.values()))
    return panels.index(_panel(root, names)), list(root.commands).index(names[0])


def _command(names: tuple[str, ...], command: Any) -> list[str]:
    words = (command.help or "").split("\n\n")[0]
    lines = [f"### recsys {' '.join(names)}", "", " ".join(words.split()), ""]
    rows = []
    for option in command.params:
        if option.name == "help":
            continue
        given = f"`{option.opts[0]}`" if option.opts[0].startswith("-") else f"`{option.name.upper()}`"
        default = "" if option.required else _default(option.default)
        rows.append(
            (given, escaped(getattr(option, "help", "") or ""), "required" if option.required else default)
        )
    if rows:
        lines += table(("option", "meaning", "default"), rows)
    if command.epilog:
        lines += ["```", command.epilog.removeprefix("Example: "), "```", ""]
    return lines


def _default(value: Any) -> str:
    if value is None or value in ("", ()):
        return ""
    return "off" if value is False else f"`{value}`"


# --- settings ----------------------------------------------------------------------------------


@dataclass
class Section:
    """A section of base.toml: what stands above it and beside its head, and (key, default, comment)s."""

    name: str
    intro: list[str]
    keys: list[list[str]] = field(default_factory=list)


def sections(text: str) -> list[Section]:
    """base.toml with its comments: those above a section, those beside and below a key."""
    found: list[Section] = []
    above: list[str] = []
    for line in text.splitlines():
        head = re.match(r"^\[([\w.]+)\]\s*(?:#\s*(.*))?$", line)
        key = re.match(r"^(\w+) = (.+)$", line)
        if head:
            found.append(Section(head[1], [*above, *([head[2]] if head[2] else [])]))
            above = []
        elif key and found:
            value, _, comment = _split(key[2])
            if above:
                comment = " ".join([*above, comment]).strip()
                above = []
            found[-1].keys.append([key[1], value, comment])
        elif re.match(r"^\s+#", line) and found and found[-1].keys:
            found[-1].keys[-1][2] += f" {line.strip().lstrip('# ')}"
        elif re.match(r"^\s+#", line) and found:
            found[-1].intro.append(line.strip().lstrip("# "))
        elif line.startswith("#"):
            above.append(line.lstrip("#").rstrip())
        elif not line.strip():
            above = [] if not found else above
    return found


def _split(text: str) -> tuple[str, str, str]:
    """Value and comment: the first # that leaves a value of TOML before it."""
    for at in (place for place, letter in enumerate(text) if letter == "#"):
        try:
            tomllib.loads(f"x = {text[:at]}")
        except tomllib.TOMLDecodeError:
            continue
        return text[:at].strip(), "#", text[at + 1 :].strip()
    return text.strip(), "", ""


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "For whoever writes a `conf/ENV.toml`: every setting, its default and its reason.",
        "",
    ]
    lines += [MADE, ""]
    lines += [
        "The defaults are those of `conf/base.toml`. An environment's file holds differences only, and may",
        "set no key that is not there. `blend`, `event_weights` and `negative` are replaced as a whole.",
        "`${NAME}` and `${NAME:-default}` are filled from the environment.",
        "",
    ]
    for section in sections((ROOT / "conf" / "base.toml").read_text("utf-8")):
        names = {"defaults.source": "sources.NAME", "defaults.campaign": "campaigns.NAME"}
        lines += [f"## [{names.get(section.name, section.name)}]", ""]
        intro = _intro(section)
        if intro:
            lines += [intro, ""]
        rows = [
            (f"`{key}`", f"`{escaped(value)}`", escaped(comment), _allowed(section.name, key))
            for key, value, comment in section.keys
        ]
        lines += table(("key", "default", "meaning", "allowed"), rows)
    return "\n".join(lines).rstrip() + "\n"


def _intro(section: Section) -> str:
    """What stands above a section: sentences, and a list where lines are indented as one."""
    lines: list[str] = []
    for line in section.intro:
        listed = re.match(r"^\s{2,}(\w+)\s{2,}(.*)$", line)
        if listed:
            lines.append(f"\n- `{listed[1]}`: {escaped(listed[2])}")
        else:
            lines.append(("\n\n" if lines and lines[-1].startswith("\n-") else " ") + escaped(line))
    return "".join(lines).strip().replace("[", "\\[").replace("\n- ", "\n\n- ", 1)


def _allowed(section: str, key: str) -> str:
    """The words or bounds that the type of the setting allows."""
    model: Any = {"defaults.source": Source, "defaults.campaign": Campaign}.get(section)
    if model is None:
        model = Settings
        for part in section.split("."):
            model = model.model_fields[part].annotation
    info = model.model_fields.get(key) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if info is None:
        return ""
    words = _words(info.annotation)
    signs = (("ge", "≥"), ("gt", "&gt;"), ("le", "≤"), ("lt", "&lt;"))
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for name, sign in signs
        for bound in info.metadata
        if getattr(bound, name, None) is not None
    ]
    return ", ".join([*(f"`{word}`" for word in words), *bounds])


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _words(part)]


# --- tables ------------------------------------------------------------------------------------


def declared() -> list[tables.Table]:
    return [value for value in vars(tables).values() if isinstance(value, tables.Table)]


def tables_page() -> str:
    lines = [
        "# Tables",
        "",
        "For whoever reads what a night writes: every table, its key and its columns.",
        "",
        MADE,
        "",
    ]
    lines += [
        "A table lies at `{lake}/{layer}/{name}`, and any client of Delta Lake reads it. Names of tables and",
        "columns are a contract. Columns `*_at` are times in UTC, `*_date` dates, `is_*` true or false, and",
        "`rank` counts from 1.",
        "",
    ]
    layer = ""
    for one in declared():
        if one.name.split(".")[0] != layer:
            layer = one.name.split(".")[0]
            lines += [f"## {layer}", ""]
        lines += [f"### {one.name}", "", f"A row is {ROWS[one.name]}.", ""]
        parts = [f"Key: {', '.join(f'`{name}`' for name in one.key)}."]
        if one.partition_by:
            parts.append(f"Partitioned by {', '.join(f'`{name}`' for name in one.partition_by)}.")
        lines += [" ".join(parts), ""]
        rows = [
            (
                f"`{name}`",
                f"`{kind.simpleString()}`",
                escaped(COLUMNS.get(f"{one.name}.{name}", COLUMNS.get(name, ""))),
            )
            for name, kind in one.columns.items()
        ]
        lines += table(("column", "type", "meaning"), rows)
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"commands.md": commands_page, "settings.md": settings_page, "tables.md": tables_page}


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
            print(f"made docs/reference/{name}")
    if stale and "--check" in sys.argv:
        print(f"not as the code says: {', '.join(stale)}. Next: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
