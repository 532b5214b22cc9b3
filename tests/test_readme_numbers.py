"""Figures of README and guides are those of the result files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import readme


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_every_table_is_what_the_result_files_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert readme.filled(text) == text
    emptied = re.sub(r"(<!-- numbers: .*? -->\n).*?(<!-- /numbers)", r"\1\2", text, flags=re.DOTALL)
    assert emptied != text
    assert readme.filled(emptied) == text


def test_every_table_has_its_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in readme.PAGES)
    assert [text.count(f"<!-- numbers: {name} -->") for name in readme.PARTS] == [1] * len(readme.PARTS)
    assert text.count("<!-- numbers: ") == text.count("<!-- /numbers -->") == len(readme.PARTS)
