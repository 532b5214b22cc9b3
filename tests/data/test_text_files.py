"""Lines of text files."""

from __future__ import annotations

import io
from pathlib import Path

from bertwright.data.text_files import lines_of


def test_lines_of_counts_lines_and_leaves_all_but_the_line_ends(tmp_path: Path) -> None:
    file = io.BytesIO(b"\xef\xbb\xbfa \r\n\r\n\x0bb\rc\n\xef\xbb\xbfd")
    assert list(lines_of(file, "f")) == [(1, "a "), (2, ""), (3, "\x0bb\rc"), (4, "\ufeffd")]
