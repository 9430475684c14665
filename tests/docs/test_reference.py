"""The reference pages say what the code says, and every name in a text exists."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from recsys_spark.cli import app
from tests.conftest import ROOT
from tests.docs.pages import pages, text_of

sys.path.insert(0, str(ROOT / "scripts"))

import reference

TEXTS = [
    *(ROOT / page for page in pages()),
    *sorted((ROOT / "conf").glob("*")),
    *sorted((ROOT / "recsys_spark").rglob("*.py")),
    *sorted((ROOT / "recsys_spark").rglob("*.j2")),
    *sorted((ROOT / "airflow_dags").glob("*.py")),
    *sorted((ROOT / "jobs").glob("*.py")),
    *sorted((ROOT / "scripts").glob("*")),
    ROOT / "Makefile",
]
ROOT_COMMAND = typer.main.get_command(app)
# `recsys` followed by a word that is no command, where it is the program or the project that is meant.
PROSE = {"command", "COMMAND", "spark", "or", "and"}


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_reference_page_is_what_the_code_says(name):
    made = reference.PAGES[name]()
    assert (reference.FOLDER / name).read_text("utf-8") == made, "Next: make docs"


def test_every_table_and_column_has_a_meaning_and_no_meaning_lacks_a_column():
    declared = {one.name: one.columns for one in reference.declared()}
    assert {*reference.ROWS} == {*declared}
    used = {name for columns in declared.values() for name in columns}
    used |= {f"{table}.{name}" for table, columns in declared.items() for name in columns}
    assert {name for columns in declared.values() for name in columns} - {*reference.COLUMNS} == set()
    assert {*reference.COLUMNS} - used == set()


def test_every_setting_of_base_is_on_the_page():
    base = tomllib.loads((ROOT / "conf" / "base.toml").read_text("utf-8"))
    found = {
        section.name: [key for key, _, _ in section.keys]
        for section in reference.sections((ROOT / "conf" / "base.toml").read_text("utf-8"))
    }
    wanted = {}
    for name, section in base.items():
        if name == "defaults":
            wanted |= {f"defaults.{kind}": [*values] for kind, values in section.items()}
            continue
        wanted[name] = [key for key, value in section.items() if f"{name}.{key}" not in found]
    wanted["preferences.ratings"] = [*base["preferences"]["ratings"]]
    assert found == wanted
    silent = [
        f"{section.name}.{key}"
        for section in reference.sections((ROOT / "conf" / "base.toml").read_text("utf-8"))
        for key, _, comment in section.keys
        if not comment and key not in SAID_BY_THEIR_NAMES
    ]
    assert silent == []


# Whose section or neighbour says what they are.
SAID_BY_THEIR_NAMES = {
    "iterations",
    "rank",
    "seed",
    "k",
    "bootstrap_samples",
    "max",
    "max_item_volume_ratio",
    "max_user_volume_ratio",
    "max_outcome_volume_ratio",
    "repeats_allowed",
    "fields",
    "path",
}


def named_commands(text: str) -> set[tuple[str, ...]]:
    """Commands of `recsys` as a text spells them, with the options that follow on the line."""
    found = set()
    for match in re.finditer(r"(?<![\w./-])(?:\.venv/bin/)?recsys ([a-z][a-z-]*)((?:[ \t]+[^`\n]*)?)", text):
        found.add((match[1], match[2]))
    return found


def unknown(word: str, rest: str) -> str | None:
    command = ROOT_COMMAND.commands.get(word)
    if command is None:
        return f"recsys {word}"
    words = rest.split()
    if hasattr(command, "commands") and words and re.fullmatch(r"[a-z]+", words[0]):
        if words[0] not in command.commands:
            return f"recsys {word} {words[0]}"
        command = command.commands[words[0]]
    if hasattr(command, "commands"):
        return None
    known = {option for one in command.params for option in one.opts} | {"--help"}
    before_the_next = re.split(r"[;|]|\brecsys\b|\)|,", rest)[0]
    wrong = [
        option for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", before_the_next) if option not in known
    ]
    return f"recsys {word} {wrong[0]}" if wrong else None


def test_no_text_names_a_command_or_option_that_does_not_exist():
    wrong = {
        f"{path.relative_to(ROOT)}: {fault}"
        for path in TEXTS
        if path.is_file() and path.suffix not in {".svg", ".png"}
        for word, rest in named_commands(path.read_text("utf-8"))
        if word not in PROSE and (fault := unknown(word, rest))
    }
    assert wrong == set()


def test_no_text_names_a_target_of_make_that_does_not_exist():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    wrong = {
        f"{page}: make {name}"
        for page in pages()
        for name in re.findall(r"(?:`|^)make ([a-z][\w-]*)", text_of(page), re.MULTILINE)
        if name not in targets
    }
    assert wrong == set()


def test_files_that_pages_name_are_there():
    """Paths of the project in code: `recsys_spark/…`, `conf/…`, `scripts/…`, `docs/…`, `tests/…`."""
    wrong = set()
    for page in (page for page in pages() if page != "CHANGELOG.md"):
        for name in re.findall(
            r"`((?:recsys_spark|conf|scripts|docs|tests|jobs|airflow_dags|benchmarks|lock)/[\w./-]+)`",
            text_of(page),
        ):
            place = Path(ROOT / name)
            is_yours = name == "conf/mine.toml" or "/ENV" in name
            if not (place.exists() or place.with_suffix(".py").exists() or is_yours):
                wrong.add(f"{page}: {name}")
    assert wrong == set()
