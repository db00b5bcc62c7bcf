"""Pages lead where they say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path) -> Iterator[str]:
    for target, anchor in LINK.findall((ROOT / page).read_text()):
        found = (ROOT / page).parent / target if target else ROOT / page
        if not found.exists():
            yield target
        elif anchor and anchor not in anchors(found):
            yield f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_leads_where_it_says(page: Path) -> None:
    assert not list(broken(page))
