"""Every block that a benchmark fills exists in its page."""

from __future__ import annotations

import re

import pytest

from benchmarks.pages import BLOCKS, fill
from components.common import ROOT


def test_the_pages_have_exactly_the_blocks_that_are_filled() -> None:
    found = {
        (page, marker)
        for page in {page for page, _, _ in BLOCKS.values()}
        for marker in re.findall(r"<!-- ([\w-]+) -->", (ROOT / page).read_text())
    }
    assert found == {(page, marker) for marker, (page, _, _) in BLOCKS.items()}


@pytest.mark.parametrize("marker", BLOCKS)
def test_a_block_is_replaced_and_the_rest_of_the_page_is_kept(marker: str) -> None:
    page = (ROOT / BLOCKS[marker][0]).read_text()
    before, rest = page.split(f"<!-- {marker} -->")
    _, after = rest.split(f"<!-- /{marker} -->")
    content = r"| \1 | 0.5 |"
    assert fill(page, marker, content) == f"{before}<!-- {marker} -->\n{content}\n<!-- /{marker} -->{after}"


def test_a_page_without_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one block serving, found 0"):
        fill("# Page\n", "serving", "")
