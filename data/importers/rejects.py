"""Bad rows, set aside in a file with where they stood and why, while the good ones go in."""

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

N_SHOWN = 5


class Rejects:
    """Collects bad rows; with a path they go to a CSV file there, which is made when the first one comes."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.n = 0
        self.first: list[str] = []
        self._file: TextIO | None = None

    def add(self, file: str, line: int, reason: str, row: object) -> None:
        """Set one row aside."""
        self.n += 1
        if len(self.first) < N_SHOWN:
            self.first.append(f"{file} line {line}: {reason}")
        if self.path is None:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # bytes that were not UTF-8 are shown as escapes
            self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
            csv.writer(self._file).writerow(["file", "line", "reason", "row"])
        csv.writer(self._file).writerow([file, line, reason, json.dumps(row, ensure_ascii=False, default=str)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
