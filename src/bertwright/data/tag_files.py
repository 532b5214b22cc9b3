"""Read sentences with tags, whatever the format of their file.

Every problem names its file and line. Nothing is skipped: what cannot be read ends the reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bertwright.data.conll import column_sentences
from bertwright.data.delimited import refuse_json
from bertwright.data.readers import holds_objects
from bertwright.data.tag_columns import Notices, TagColumns
from bertwright.data.tag_objects import object_sentences
from bertwright.data.tagged import TaggedExample
from bertwright.errors import BertwrightError


def read_tagged(path: Path, columns: TagColumns) -> Iterator[TaggedExample]:
    """Yield the sentences of a file in order: JSON lines (.jsonl, .ndjson), Parquet, else columns.

    Columns are separated by tabs if the first line with a word has one, else by blanks, in .csv by commas if it has one;
    a delimiter settles it. If that line holds the names that ``columns`` looks for, it is a header. Empty lines and lines
    that begin with -DOCSTART- stand between sentences.

    Raises:
        BertwrightError: the file is missing, not to be read or empty, or a sentence cannot be read (names the line).
    """
    refuse_json(path)
    notices = Notices()
    rows = (object_sentences if holds_objects(path) else column_sentences)(path, columns, notices)
    empty = True
    for example in rows:
        empty = False
        yield example
    if empty:
        raise BertwrightError(f"{path}: the file has no sentences; is it the right one?")
    notices.tell(path)
