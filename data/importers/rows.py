"""A log's table read row by row, whatever its file type: .csv, .jsonl or .parquet.

What is not a row of the table (undecodable, of another width, not JSON) is set aside here; what its cells mean is for
the importers to judge.
"""

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data.errors import LogFormatError
from data.importers.rejects import Rejects

BATCH_ROWS = 8192
HEADER_ROWS = 100  # of .jsonl, whose objects name their columns one by one
MAX_HEADER_BYTES = 65536  # that are looked at to tell whether it is text
MAX_SHOWN_CHARS = 500  # of a line that is set aside
MAX_FIELD_CHARS = 2**31 - 1  # a prompt may be a book; the csv module's own limit is 131072
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row and the line that it starts on (in a parquet file, its number)."""

    line: int
    cells: dict[str, object]


class Table:
    """One file of a log. `n_done` of `n_total` (bytes, in parquet rows) tells how far reading it has come."""

    def __init__(self, path: Path, rejects: Rejects, needed: Sequence[str] = ()) -> None:
        self.path = path
        self.rejects = rejects
        self.n_done = 0
        self.n_total = max(path.stat().st_size, 1)
        if path.suffix == ".parquet":
            self.columns = self._parquet_columns()
        else:
            self.columns = self._csv_columns() if path.suffix == ".csv" else self._jsonl_columns()
        missing = [column for column in needed if column not in self.columns]
        if missing and (self.columns or path.suffix != ".jsonl"):  # an empty .jsonl has no columns to lack
            raise LogFormatError(
                f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
                f"it has {', '.join(self.columns) or 'none'}{self.separator_hint}"
            )

    def __iter__(self) -> Iterator[Row]:
        self.n_done = 0
        if self.path.suffix == ".parquet":
            return self._parquet_rows()
        return self._csv_rows() if self.path.suffix == ".csv" else self._jsonl_rows()

    @property
    def separator_hint(self) -> str:
        """What to add where columns are missing: that the file seems to be separated by something but commas."""
        only = self.columns[0] if len(self.columns) == 1 and self.path.suffix == ".csv" else ""
        named = {";": "semicolons", "\t": "tabs", "|": "bars"}
        return next((f": separate columns by commas, not by {named[one]}" for one in named if one in only), "")

    def reject(self, row: Row, reason: str) -> None:
        """Set one of this table's rows aside."""
        self.rejects.add(self.path.name, row.line, reason, row.cells)

    def _lines(self) -> Iterator[str]:
        """Decode line by line; bytes that are not UTF-8 become lone surrogates, which `Row`s are checked for."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                self.n_done += len(line)
                yield (line.removeprefix(BOM) if number == 0 else line).decode("utf-8", "surrogateescape")

    def _csv_columns(self) -> tuple[str, ...]:
        self._require_text()
        csv.field_size_limit(MAX_FIELD_CHARS)
        try:
            header = next(csv.reader(self._lines()), [])
        except csv.Error as error:
            raise LogFormatError(f"{self.path} is not CSV: {error}") from None
        columns = tuple(column.strip() for column in header)
        repeated = {column for column in columns if columns.count(column) > 1}
        if repeated:
            raise LogFormatError(f"{self.path} has more than one column {', '.join(sorted(repeated))}")
        return columns

    def _require_text(self) -> None:
        """Refuse a file whose first line is not UTF-8, or holds the NULs of UTF-16 and of what is no text."""
        with self.path.open("rb") as file:
            line = file.readline(MAX_HEADER_BYTES)
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(line)  # which may end within a character
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise LogFormatError(f"{self.path} is not UTF-8: save it as CSV in UTF-8, from a spreadsheet too")

    def _csv_rows(self) -> Iterator[Row]:
        taken: list[str] = []  # the lines of the row that is being read
        reader = csv.reader(_noting(self._lines(), taken), strict=True)
        next(reader)
        while True:
            line = reader.line_num + 1
            taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = f"not CSV: {error}"
                if len(taken) > 1:
                    opened = line + line_of_open_quote(taken)
                    reason = (
                        f"the cell whose quote opens on line {opened} has no proper end ({error}): lines {line} to "
                        f"{reader.line_num} are lost; close the quote, and write each one inside the cell twice"
                    )
                    line = opened
                self.rejects.add(self.path.name, line, reason, taken[line - reader.line_num - 1][:MAX_SHOWN_CHARS])
                continue
            if not fields:
                continue
            if len(fields) != len(self.columns):
                reach = f" (the row reaches to line {reader.line_num})" if reader.line_num > line else ""
                reason = f"{len(fields)} columns, not {len(self.columns)}{reach}"
                self.rejects.add(self.path.name, line, reason, fields)
                continue
            yield Row(line, dict(zip(self.columns, fields, strict=True)))

    def _jsonl_columns(self) -> tuple[str, ...]:
        """The keys of the first objects; a later row may have others."""
        silent = Table.__new__(Table)
        silent.path, silent.rejects, silent.n_done = self.path, Rejects(), 0
        return tuple(dict.fromkeys(key for row in islice(silent._jsonl_rows(), HEADER_ROWS) for key in row.cells))

    def _jsonl_rows(self) -> Iterator[Row]:
        for number, text in enumerate(self._lines(), start=1):
            if not text.strip():
                continue
            try:
                cells = json.loads(text)
            except (ValueError, RecursionError) as error:
                self.rejects.add(self.path.name, number, f"not JSON: {error}", text.rstrip("\n"))
                continue
            if not isinstance(cells, dict):
                self.rejects.add(self.path.name, number, "not a JSON object", cells)
                continue
            yield Row(number, cells)

    def _parquet_columns(self) -> tuple[str, ...]:
        import pyarrow
        import pyarrow.parquet

        try:
            file = pyarrow.parquet.ParquetFile(self.path)
        except pyarrow.ArrowException as error:
            raise LogFormatError(f"{self.path} is not a parquet file: {error}") from None
        with file:
            self.n_total = max(file.metadata.num_rows, 1)
            return tuple(file.schema_arrow.names)

    def _parquet_rows(self) -> Iterator[Row]:
        import pyarrow
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            batches = file.iter_batches(batch_size=BATCH_ROWS)
            while True:
                try:
                    batch = next(batches, None)
                except (pyarrow.ArrowException, OSError) as error:
                    raise LogFormatError(f"{self.path} cannot be read beyond row {self.n_done}: {error}") from None
                if batch is None:
                    return
                for cells in zip(*(_cells(column) for column in batch.columns), strict=True):
                    self.n_done += 1
                    yield Row(self.n_done, dict(zip(self.columns, cells, strict=True)))


def _cells(column: Any) -> list[object]:
    """A column of parquet as Python values; bytes that are not UTF-8 become lone surrogates, as in the other files."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_cell(value) for value in column]


def _cell(value: Any) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "surrogateescape")


def line_of_open_quote(lines: Sequence[str]) -> int:
    """On which of a faulty row's lines, from 0, the quoted cell begins that it could not be read beyond."""
    opened, quoted, at_start, closed = 0, False, True, False
    for number, line in enumerate(lines):
        for character in line:
            if quoted:
                closed, quoted = character == '"', character != '"'
            elif closed and character == '"':  # a quote within the cell, written twice
                quoted, closed = True, False
            elif character in ",\r\n":
                at_start, closed = True, False
                continue
            elif closed:  # what stands after a closing quote: the cell was never meant to end there
                return opened
            elif at_start and character == '"':
                opened, quoted = number, True
            at_start = False
    return opened


def _noting(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line
