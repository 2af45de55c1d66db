"""The spool counts what it holds exactly, and one bad file keeps no other from being read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.tables import utc_now
from router.spool import Record, Segment, Spool

RECORD = Record("decision", {"id": "d", "created_at": utc_now()})
SIZE = len(RECORD.as_line())


def left_by_a_dead_process(root: Path, n_segments: int) -> Path:
    """A folder of segments that no one holds."""
    dead = Spool(root, max_bytes=10**6)
    for _ in range(n_segments):
        dead.write([RECORD])
    dead.close()
    (folder,) = root.iterdir()
    return folder


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path, max_bytes=2 * SIZE)
    yield spool
    spool.close()


def test_what_is_written_while_another_segment_is_removed_counts(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spool.write([RECORD])
    written: list[Segment] = []

    def meanwhile(name: str) -> None:
        """Write another segment while the first is looked at or removed, as the other thread may at any time."""
        real = getattr(Path, name)

        def patched(path: Path, *args: Any, **kwargs: Any) -> object:
            if path == first.path and not written:
                written.append(spool.write([RECORD]))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(Path, name, patched)

    for name in ("stat", "unlink"):
        meanwhile(name)
    spool.remove(first)
    spool.write([RECORD])
    with pytest.raises(OSError, match=f"the spool holds {2 * SIZE} bytes"):
        spool.write([RECORD])


def test_a_segment_that_someone_took_away_leaves_its_room(spool: Spool) -> None:
    for _ in range(3):
        segment = spool.write([RECORD])
        assert segment.path is not None
        segment.path.unlink()
        spool.remove(segment)


def test_adopted_segments_count_until_they_are_removed(spool: Spool, tmp_path: Path) -> None:
    folder = left_by_a_dead_process(tmp_path, 2)
    adopted = spool.adopt()
    with pytest.raises(OSError, match=f"the spool holds {2 * SIZE} bytes"):
        spool.write([RECORD])
    for segment in adopted:
        assert folder.is_dir()
        spool.remove(segment)
    assert not folder.exists()
    for _ in range(2):
        spool.write([RECORD])


def test_a_file_that_cannot_be_looked_at_keeps_no_other_from_being_adopted(spool: Spool, tmp_path: Path) -> None:
    folder = left_by_a_dead_process(tmp_path, 2)
    (folder / "000000000000-1.jsonl").symlink_to(tmp_path / "nowhere")
    gone, *adopted = spool.adopt()
    assert [list(spool.read(segment)) for segment in adopted] == [[RECORD], [RECORD]]
    for segment in (gone, *adopted):
        spool.remove(segment)
    assert not folder.exists()


def test_removing_a_segment_does_not_list_its_folder(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = left_by_a_dead_process(tmp_path, 10)
    adopted = spool.adopt()
    listed: list[Path] = []
    real = Path.glob

    def glob(path: Path, pattern: str) -> Iterator[Path]:
        listed.append(path)
        return real(path, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    for segment in adopted:
        spool.remove(segment)
    assert listed == [folder]  # once, when it is left
    assert not folder.exists()
