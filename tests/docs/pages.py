"""The documents as a test reads them: pages, their prose as sentences, their blocks of code, their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

MADE = ("docs/reference/commands.md", "docs/reference/settings.md", "docs/reference/tables.md")
ROOT_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
# Prose without these is not English: a full stop in them ends no sentence.
_ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "etc.", "approx.")
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code: of which page and language, and its text."""

    page: str
    language: str
    text: str


def pages() -> list[str]:
    """All pages, as paths from the project's root."""
    below = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
    return [*ROOT_PAGES, *below]


def written() -> list[str]:
    """The pages that people write."""
    return [page for page in pages() if page not in MADE]


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(page, found[1], found[2]) for found in _BLOCK.finditer(text_of(page))]


def paragraphs(page: str) -> Iterator[str]:
    """Prose, cells of tables and items of lists, one by one; no code, headings or markup."""
    text = _BLOCK.sub("", text_of(page))
    text = re.sub(r"<[^>]+>", " ", text, flags=re.DOTALL)
    chunk: list[str] = []
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        begins = re.match(r"^([-*]|\d+\.)\s", stripped)
        if not stripped or stripped.startswith(("#", "|")) or begins:
            if chunk:
                yield " ".join(chunk)
            chunk = []
        if stripped.startswith("|"):
            yield from (
                cell.strip() for cell in re.split(r"(?<!\\)\|", stripped.strip("|")) if cell.strip("- ")
            )
        elif stripped and not stripped.startswith("#"):
            chunk.append(re.sub(r"^([-*]|\d+\.)\s+", "", stripped))


def sentences(page: str) -> Iterator[str]:
    for paragraph in paragraphs(page):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)  # a link is its words
        text = re.sub(r"`[^`]*`", "Code", text)  # a name in code is one word
        for short in _ABBREVIATIONS:
            text = text.replace(short, short.replace(".", ""))
        yield from (
            part.strip() for part in re.split(r"(?<=[.!?:])\s+(?=[\"'(*_`A-Z0-9])", text) if part.strip()
        )


def first_words(page: str) -> str:
    """The first paragraph below the title."""
    return next(iter(paragraphs(page)), "")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub make them."""
    text = _BLOCK.sub("", path.read_text("utf-8"))
    heads = re.findall(r"^#+\s+(.*?)\s*$", text, re.MULTILINE)
    plain = [re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", head) for head in heads]
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in plain}


def links(page: str) -> list[str]:
    text = _BLOCK.sub("", text_of(page))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
