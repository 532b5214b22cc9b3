"""README's figures are those of the result files."""

from __future__ import annotations

from benchmarks import readme


def test_every_table_is_what_the_result_files_say() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert text.count("<!-- numbers: ") == text.count("<!-- /numbers -->") == 4
    assert readme.filled(text) == text
    assert readme.filled(text.replace("times |", "| ")) == text
