"""The pages hang together: links and pictures lead somewhere, named files exist, the README leads to all."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = "calib|viewsync|edge|hub|export|bench|tests|docs|configs|bundles|scripts"
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@by_page
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@by_page
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text) + re.findall(r"\b(docs/\w+\.md)", text):
        assert (ROOT / name).exists(), name


def test_the_readme_leads_to_every_page() -> None:
    linked = re.findall(r"\]\((docs/\w+\.md)\)", (ROOT / "README.md").read_text("utf-8"))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} == set(linked)


@by_page
def test_a_page_reads_on_any_machine(page: Path) -> None:
    """No line so long that it hides, and one heading of the first rank comes first."""
    text = page.read_text("utf-8")
    assert text.startswith("# ")
    prose = [line for line in text.splitlines() if not line.startswith(("|", "!["))]
    assert max(map(len, prose)) <= 160
