"""Tables that are no CSV, though they are called so: the reason is said in words that can be printed."""

from pathlib import Path

import pytest

from data.errors import LogFormatError
from data.importers.rejects import Rejects
from data.importers.rows import MAX_HEADER_BYTES, Table

TEXT = "question_id,label\nq1,1\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        "größe,label\n".encode("latin-1"),
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff\r\x80\n",
        b"\x80" * (2 * MAX_HEADER_BYTES),
    ],
    ids=["UTF-16", "UTF-16 without its mark", "Latin-1", "a workbook", "one endless line"],
)
def test_what_is_not_utf_8_is_called_so_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.csv"
    path.write_bytes(content)
    with pytest.raises(LogFormatError) as refused:
        Table(path, Rejects(), ("question_id", "label"))
    assert str(refused.value) == f"{path} is not UTF-8: save it as CSV in UTF-8, from a spreadsheet too"


@pytest.mark.parametrize("cut", range(3))
def test_a_header_may_be_longer_than_what_is_looked_at(tmp_path: Path, cut: int) -> None:
    name = "x" * (MAX_HEADER_BYTES - 1 - cut) + "\N{EURO SIGN}"  # of three bytes, which the end cuts apart
    (tmp_path / "wide.csv").write_text(f"{name},label\n", encoding="utf-8")
    assert Table(tmp_path / "wide.csv", Rejects()).columns == (name, "label")


@pytest.mark.parametrize(("mark", "named"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_named(tmp_path: Path, mark: str, named: str) -> None:
    (tmp_path / "answers.csv").write_text(TEXT.replace(",", mark))
    with pytest.raises(LogFormatError, match=f": separate columns by commas, not by {named}$"):
        Table(tmp_path / "answers.csv", Rejects(), ("question_id", "label"))


def test_a_column_that_is_lacking_among_others_is_only_named(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("question_id;,label\n")
    with pytest.raises(LogFormatError, match=r"lacks the column question_id; it has question_id;, label$"):
        Table(tmp_path / "answers.csv", Rejects(), ("question_id", "label"))
