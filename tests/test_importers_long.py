"""The long format: what goes in, what is set aside, and that the same file twice is the same table."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, func, select

from data.database import open_engine, upgrade
from data.errors import LogFormatError
from data.importers.long import import_folder, read_folder
from data.importers.rejects import Rejects
from data.importers.rows import Table
from data.queries import pool_models, read_log
from data.store import set_model
from data.tables import Outcome
from tests.conftest import url_of
from tests.logs import QUESTIONS, contents, observations, write_csv, write_long

GOOD = [("q1", "small", 0), ("q1", "large", 1), ("q2", "small", 1), ("q3", "large", 1)]
PYTHON = sys.executable
ROOT = Path(__file__).parents[1]


def rejected(folder: Path) -> list[tuple[str, int, str]]:
    """(file, line, reason) of everything that was set aside."""
    rows = [
        row for path in sorted(folder.glob("*.csv")) for row in csv.DictReader(io.StringIO(path.read_text("utf-8")))
    ]
    return [(row["file"], int(row["line"]), row["reason"]) for row in rows]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_file_type_holds_the_same_log(engine: Engine, tmp_path: Path, kind: str) -> None:
    folder = write_long(tmp_path / "tiny", GOOD, kind=kind)
    summary = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_repeated, summary.n_conflicting, summary.n_rejected) == (4, 0, 0, 0)
    assert (summary.n_new_questions, summary.n_new_models, summary.source) == (3, 2, "long:tiny")
    assert summary.rejects is None
    log = read_log(engine)
    assert log.questions["question_id"].tolist() == ["q1", "q2", "q3"]
    assert log.questions["benchmark"].tolist() == ["geography", "chemistry", "maths"]
    assert log.questions["split"].tolist() == ["train", "val", "test"]
    assert log.models["usd_per_1m_output"].tolist() == [0.2, 15.0]
    assert log.cells["label"].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_a_score_without_a_label_is_learned_as_it_is(engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "graded", GOOD)
    rows = [
        ("q1", "small", "", 0.55),
        ("q1", "small", "", 0.25),
        ("q1", "large", "", 1.0),
        ("q2", "small", 1, 0.3),  # a verdict that was stated stands, whatever the score means there
        ("q3", "large", "", 0.2),
    ]
    write_csv(folder / "correctness.csv", ("question_id", "model_name", "label", "score"), rows)
    assert import_folder(engine, folder).n_new == 5
    learned = [0.4, 1.0, 1.0, 0.2]
    assert read_log(engine).cells["label"].tolist() == pytest.approx(learned)
    assert read_folder(folder).cells["label"].tolist() == pytest.approx(learned)
    with engine.connect() as connection:
        stored = connection.execute(select(Outcome.label, Outcome.graded).order_by(Outcome.id)).all()
    assert stored == [(1, True), (0, True), (1, True), (1, False), (0, True)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_same_import_twice_changes_nothing(engine: Engine, tmp_path: Path, kind: str) -> None:
    folder = write_long(tmp_path / "tiny", [*GOOD, ("q1", "small", 0), ("q9", "small", 1)], kind=kind)
    first = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    before = contents(engine)
    second = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert contents(engine) == before
    assert (first.n_new, first.n_rejected) == (5, 1)
    assert (second.n_new, second.n_repeated, second.n_rejected, second.n_new_questions) == (0, 5, 1, 0)


def test_the_same_files_in_another_folder_change_nothing(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, write_long(tmp_path / "here", GOOD))
    before = contents(engine)
    moved = write_long(tmp_path / "there", GOOD)
    summary = import_folder(engine, moved)
    assert (summary.n_new, summary.source) == (0, "long:here")
    assert contents(engine) == before
    summary = import_folder(engine, moved, source="another run")
    assert (summary.n_new, summary.source) == (4, "another run")


def test_a_repeat_inside_a_file_is_an_observation_of_its_own(engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "tiny", [("q1", "small", 1), ("q1", "small", 1), ("q1", "small", 0)])
    summary = import_folder(engine, folder)
    assert (summary.n_new, summary.n_conflicting) == (3, 1)
    cell = read_log(engine).cells.iloc[0]
    assert (cell["n_observations"], cell["label"]) == (3, pytest.approx(2 / 3))


def test_a_grown_file_adds_only_what_it_grew_by(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, write_long(tmp_path / "tiny", GOOD))
    grown = import_folder(engine, write_long(tmp_path / "tiny", [*GOOD, ("q2", "large", 1)]))
    assert (grown.n_new, grown.n_repeated) == (1, 4)


def test_an_edited_label_is_a_new_observation_that_conflicts(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, write_long(tmp_path / "tiny", GOOD))
    edited = import_folder(engine, write_long(tmp_path / "tiny", [("q1", "small", 1), *GOOD[1:]]))
    assert (edited.n_new, edited.n_repeated, edited.n_conflicting) == (1, 3, 1)
    other = import_folder(engine, write_long(tmp_path / "tiny", GOOD), source="another run")
    assert (other.n_new, other.n_conflicting) == (4, 1)


def test_bad_rows_are_set_aside_with_line_and_reason_while_good_ones_go_in(engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "bad", [])
    header = b"\xef\xbb\xbfquestion_id,model_name,label,score,cost_usd,output_chars,notes\n"
    rows = [
        b"q1,small,1,,,,",  # line 2: good
        b"q9,small,1,,,,",  # 3
        b"q1,small,maybe,,,,",  # 4
        b"q1,small,NaN,,,,",  # 5
        b"q1,small,1",  # 6
        b"q1,sm\xff\xfell,1,,,,",  # 7
        b"q1,small,1,,cheap,,",  # 8
        b"q1,small,,0.7,,-1,",  # 9: good, by its score
        b"q1,small,,1.5,,,",  # 10
        b"q1,small,1,,-2,,",  # 11
        b'"q2","large",TRUE,,0.001,44,"two',  # 12: good, over two lines
        b'lines"',
        b"q1,,1,,,,",  # 14
        b"q1,small,2,,,,",  # 15
        b"q2,small,0.0,0.25,1e-3,8.0,x",  # 16: good
        b"q1,small,1,,,,\x00",  # 17: good, the NUL stands in a column that nothing reads
        b"q1\x00,small,1,,,,",  # 18
        b"q1,small,1,,,1.5,",  # 19
        b"q1,small,1,,,nan,",  # 20: good
        b"q1,small,1,inf,,,",  # 21
    ]
    (folder / "correctness.csv").write_bytes(header + b"\n".join(rows) + b"\n")
    summary = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert rejected(tmp_path / "rejects") == [
        ("correctness.csv", 3, "question_id q9 is not in questions.csv"),
        ("correctness.csv", 4, "label is 'maybe', not 0 or 1"),
        ("correctness.csv", 5, "label is missing"),
        ("correctness.csv", 6, "3 columns, not 7"),
        ("correctness.csv", 7, "model_name is not UTF-8"),
        ("correctness.csv", 8, "cost_usd is 'cheap', not a number"),
        ("correctness.csv", 10, "score is '1.5', it must be from 0 to 1"),
        ("correctness.csv", 11, "cost_usd is '-2', it must be 0 or more"),
        ("correctness.csv", 14, "model_name is empty"),
        ("correctness.csv", 15, "label is '2', not 0 or 1"),
        ("correctness.csv", 18, "question_id contains a NUL character"),
        ("correctness.csv", 19, "output_chars is '1.5', not a whole number"),
        ("correctness.csv", 21, "score is 'inf', it must be from 0 to 1"),
    ]
    assert (summary.n_new, summary.n_rejected) == (6, 13)
    assert summary.first_rejects[0] == "correctness.csv line 3: question_id q9 is not in questions.csv"
    with engine.connect() as connection:
        stored = connection.execute(select(Outcome.label, Outcome.score, Outcome.output_chars, Outcome.cost_usd)).all()
    assert (1, 0.7, None, None) in [tuple(row) for row in stored]
    assert (0, 0.25, 8, 0.001) in [tuple(row) for row in stored]


def test_bad_questions_and_models_are_set_aside_too(engine: Engine, tmp_path: Path) -> None:
    questions = [
        *QUESTIONS,
        ("q4", "   ", "maths", "train"),
        ("", "An orphan", "maths", "train"),
        ("q1", "Another prompt under the first one's id", "maths", "train"),
        ("q5", "A prompt in an unknown part", "maths", "holdout"),
        ("q" * 600, "A prompt with an endless id", "maths", "train"),
        QUESTIONS[0],
    ]
    models = [("small", "free", ""), ("large", "3", "15"), ("large", "4", "15")]
    folder = write_long(tmp_path / "bad", GOOD, questions=questions, models=models)
    summary = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert [reason for _, _, reason in rejected(tmp_path / "rejects")] == [
        "prompt is empty",
        "question_id is empty",
        "question_id q1 stands for another prompt above",
        "split is 'holdout', not train, val or test",
        "question_id has 600 characters, at most 512 are kept",
        "usd_per_1m_input is 'free', not a number",
        "model_name large stands above already",
    ]
    assert (summary.n_new, summary.n_new_questions) == (4, 3)


def test_json_lines_that_are_not_objects_are_set_aside(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "bad", GOOD, kind="jsonl")
    with (folder / "correctness.jsonl").open("ab") as file:
        file.write(b'\n{"question_id": "q2"\n[1, 2]\n{"question_id": "q2", "model_name": "large", "label": true}\n')
        file.write(b'{"question_id": "q2", "label": 1}\n{"question_id": "q2", "model_name": "\\ud800", "label": 1}\n')
    summary = import_folder(sqlite_engine, folder, rejects_folder=tmp_path / "rejects")
    lines = [(line, reason.split(":")[0]) for _, line, reason in rejected(tmp_path / "rejects")]
    assert lines == [
        (6, "not JSON"),
        (7, "not a JSON object"),
        (9, "model_name is empty"),
        (10, "model_name is not UTF-8"),
    ]
    assert summary.n_new == 5


def test_what_json_lines_cannot_hold_is_set_aside(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "odd", [], kind="jsonl")
    good = '{"question_id": "q1", "model_name": "small", "label": 1'
    lines = [good + ', "cost_usd": 1' + "0" * 400 + "}", "[" * 100_000, good + "}"]
    (folder / "correctness.jsonl").write_text("\n".join(lines) + "\n")
    assert import_folder(sqlite_engine, folder, rejects_folder=tmp_path / "rejects").n_new == 1
    (huge, deep) = rejected(tmp_path / "rejects")
    assert huge[1] == 1
    assert huge[2].startswith("cost_usd is 1000")
    assert deep[1] == 2
    assert deep[2].startswith("not JSON: ")


@pytest.mark.parametrize("first", [{"question_id": "q1"}, {"question_id": "q1", "model_name": "small"}])
def test_a_bad_first_line_of_json_is_one_bad_row(
    sqlite_engine: Engine, tmp_path: Path, first: dict[str, object]
) -> None:
    folder = write_long(tmp_path / "first", GOOD, kind="jsonl")
    path = folder / "correctness.jsonl"
    path.write_text(json.dumps(first) + "\n" + path.read_text())
    summary = import_folder(sqlite_engine, folder, rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_rejected) == (4, 1)


def test_a_log_without_outcomes_brings_its_questions(sqlite_engine: Engine, tmp_path: Path) -> None:
    for kind in ("csv", "jsonl"):
        summary = import_folder(sqlite_engine, write_long(tmp_path / kind, [], kind=kind))
        assert (summary.n_new, summary.n_rejected) == (0, 0)
    assert len(read_log(sqlite_engine).questions) == 3


def test_lines_that_end_as_no_csv_may_are_refused(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "old", GOOD)
    path = folder / "correctness.csv"
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    with pytest.raises(LogFormatError, match=r"correctness\.csv is not CSV: new-line character"):
        import_folder(sqlite_engine, folder)


def test_an_unclosed_quote_is_told(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "bad", GOOD)
    with (folder / "correctness.csv").open("a") as file:
        file.write('q2,"large,1\nq3,small,1\n')
    summary = import_folder(sqlite_engine, folder, rejects_folder=tmp_path / "rejects")
    assert rejected(tmp_path / "rejects") == [
        (
            "correctness.csv",
            6,
            "the cell whose quote opens on line 6 has no proper end (unexpected end of data): lines 6 to 7 are lost; "
            "close the quote, and write each one inside the cell twice",
        )
    ]
    assert summary.n_new == 4


@pytest.mark.parametrize(
    ("rows", "opened", "lost"),
    [
        ('"two\nlines","open,1\nq3,small,1\n', 3, "2 to 4"),  # not where the row begins
        ('"she said ""yes"",\nthen","open\n\n', 3, "2 to 4"),
        ('q2,"open,1\nq3,small,1\nq2,"small",1\n', 2, "2 to 4"),  # another quote ends it
    ],
)
def test_an_unclosed_quote_is_told_where_it_opens(tmp_path: Path, rows: str, opened: int, lost: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("question_id,model_name,label\n" + rows)
    rejects = Rejects()
    assert list(Table(path, rejects)) == []
    (said,) = rejects.first
    assert said.startswith(f"table.csv line {opened}: the cell whose quote opens on line {opened} ")
    assert f"lines {lost} are lost" in said


def test_strings_of_parquet_that_are_not_utf_8_are_set_aside(engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "bad", GOOD, kind="parquet")
    good = pq.read_table(folder / "correctness.parquet")
    names = pa.array([name.encode() for name in good["model_name"].to_pylist()[:-1]] + [b"\xffarge"], pa.binary())
    undecodable = pa.Array.from_buffers(pa.string(), len(names), names.buffers())
    pq.write_table(good.set_column(1, "model_name", undecodable), folder / "correctness.parquet")
    assert import_folder(engine, folder, rejects_folder=tmp_path / "rejects").n_new == 3
    assert rejected(tmp_path / "rejects") == [("correctness.parquet", 4, "model_name is not UTF-8")]


def test_a_parquet_file_that_breaks_off_is_named(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = write_long(tmp_path / "bad", [("q1", f"model {i}", 1) for i in range(5000)], kind="parquet")
    path = folder / "correctness.parquet"
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(LogFormatError, match=r"correctness\.parquet cannot be read beyond row 0"):
        import_folder(sqlite_engine, folder)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_no_model_is_called_auto_or_nothing(engine: Engine, tmp_path: Path, kind: str) -> None:
    outcomes = [*GOOD, ("q1", "auto", 1), ("q2", " ", 1), ("q2", " auto ", 1), ("q3", "automatic", 1)]
    folder = write_long(tmp_path / "bad", outcomes, kind=kind, models=[("small", 1, 2), ("auto", 1, 2), ("", 1, 2)])
    summary = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_rejected) == (5, 5)
    reasons = [(file.split(".")[0], reason) for file, _, reason in rejected(tmp_path / "rejects")]
    why = "model_name is 'auto': no model can be called auto: that name asks the router to choose"
    assert reasons == [
        ("models", why),
        ("models", "model_name is empty"),
        ("correctness", why),
        ("correctness", "model_name is empty"),
        ("correctness", why),
    ]
    assert [row.name for row in pool_models(engine)] == ["automatic", "large", "small"]


@pytest.mark.parametrize("price", ["-0.1", "inf", "-inf", "1e999", "$3", "1,5"])
def test_a_price_that_none_can_be_is_refused_and_the_model_has_none(
    sqlite_engine: Engine, tmp_path: Path, price: str
) -> None:
    folder = write_long(tmp_path / "bad", GOOD, models=[("small", 1, price), ("large", "nan", 15)])
    import_folder(sqlite_engine, folder, rejects_folder=tmp_path / "rejects")
    ((file, line, reason),) = rejected(tmp_path / "rejects")
    assert (file, line) == ("models.csv", 2)
    assert reason.startswith(f"usd_per_1m_output is '{price}', ")
    prices = {row.name: (row.usd_per_1m_input, row.usd_per_1m_output) for row in pool_models(sqlite_engine)}
    assert prices == {"small": (None, None), "large": (None, 15.0)}
    assert read_folder(folder, rejects=Rejects()).models["usd_per_1m_output"].dropna().tolist() == [15.0]


def test_a_prompt_as_long_as_a_book_goes_in(engine: Engine, tmp_path: Path) -> None:
    book = "all work and no play " * 20_000
    folder = write_long(tmp_path / "book", [("b", "small", 1)], questions=[("b", book, "novels", "")])
    assert import_folder(engine, folder).n_new == 1
    assert read_log(engine).questions["prompt"].tolist() == [book]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("questions.csv", r"lacks questions\.csv; it holds correctness\.csv, models\.csv"),
        ("models.csv", r"lacks models\.csv"),
        ("correctness.csv", r"lacks correctness\.parquet, \.csv or \.jsonl; it holds models\.csv, questions\.csv"),
    ],
)
def test_a_missing_file_is_named_with_what_is_there(
    sqlite_engine: Engine, tmp_path: Path, broken: str, said: str
) -> None:
    folder = write_long(tmp_path / "broken", GOOD)
    (folder / broken).unlink()
    with pytest.raises(LogFormatError, match=said):
        import_folder(sqlite_engine, folder)


def test_what_is_no_long_format_folder_is_refused(sqlite_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match="does not exist: a long-format folder holds"):
        import_folder(sqlite_engine, tmp_path / "nowhere")
    with pytest.raises(LogFormatError, match="is a file"):
        import_folder(sqlite_engine, Path(__file__))
    folder = write_long(tmp_path / "two", GOOD)
    write_long(folder, GOOD, kind="jsonl")
    with pytest.raises(LogFormatError, match=r"holds correctness\.csv and correctness\.jsonl"):
        import_folder(sqlite_engine, folder)
    folder = write_long(tmp_path / "columns", [("q1", 1)], header=("question_id", "label"))
    with pytest.raises(LogFormatError, match=r"lacks the column model_name; it has question_id, label"):
        import_folder(sqlite_engine, folder)
    folder = write_long(tmp_path / "unlabelled", [("q1", "small")], header=("question_id", "model_name"))
    with pytest.raises(LogFormatError, match=r"lacks the column label \(or score\)"):
        import_folder(sqlite_engine, folder)
    folder = write_long(tmp_path / "parquet", GOOD, kind="parquet")
    (folder / "correctness.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(LogFormatError, match="is not a parquet file"):
        import_folder(sqlite_engine, folder)


def test_prices_of_a_file_fill_gaps_and_never_overwrite(engine: Engine, tmp_path: Path) -> None:
    set_model(engine, "large", usd_per_1m_input=2.5, aliases=["large-2024"])
    folder = write_long(tmp_path / "tiny", [("q1", "large-2024", 1)], models=[("large-2024", "3", "15")])
    assert import_folder(engine, folder).n_new_models == 0
    (model,) = pool_models(engine)
    assert (model.name, model.usd_per_1m_input, model.usd_per_1m_output, model.n_outcomes) == ("large", 2.5, 15.0, 1)


def test_a_split_is_fixed_when_a_question_is_first_stored(engine: Engine, tmp_path: Path) -> None:
    story = "A long enough story about a farmer, his seventeen sheep, a river, a wooden gate and the evening sun. " * 2
    import_folder(engine, write_long(tmp_path / "first", [], questions=[("a", story, "x", "test")]))
    later = [("a", story, "x", "train"), ("b", story + "Why?", "x", "train"), ("c", "Something else", "x", "")]
    import_folder(engine, write_long(tmp_path / "later", [("a", "small", 1)], questions=later))
    questions = read_log(engine).questions.set_index("question_id")
    assert questions["split"].to_dict() | {"c": "?"} == {"a": "test", "b": "test", "c": "?"}
    assert questions.loc["c", "split"] in ("train", "val", "test")
    group = questions["group"].to_dict()
    assert group["a"] == group["b"] != group["c"]


def test_a_killed_import_run_again_equals_one_that_was_not(engine: Engine, tmp_path: Path) -> None:
    rows = [(f"q{i}", f"model-{j}", (i * j) % 2, i + j) for j in range(40) for i in range(1500)]
    questions = [(f"q{i}", f"Question number {i} asks what comes after {i * 31 % 977}.", "x", "") for i in range(1500)]
    header = ("question_id", "model_name", "label", "output_chars")
    folder = write_long(tmp_path / "big", [*rows, *rows[:50]], header=header, kind="parquet", questions=questions)
    program = (
        "import sys; from pathlib import Path; from data.database import open_engine; "
        "from data.importers.long import import_folder; import_folder(open_engine(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [PYTHON, "-c", program, url_of(engine), str(folder)]
    process = subprocess.Popen(command, cwd=ROOT)
    stored = 0
    while stored == 0 and process.poll() is None:
        time.sleep(0.01)
        with engine.connect() as connection:
            stored = connection.execute(select(func.count()).select_from(Outcome)).scalar() or 0
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    with engine.connect() as connection:
        stored = connection.execute(select(func.count()).select_from(Outcome)).scalar() or 0
    assert 0 < stored < len(rows)

    summary = import_folder(engine, folder)
    assert (summary.n_new, summary.n_repeated) == (len(rows) + 50 - stored, stored)
    whole = open_engine(f"sqlite:///{tmp_path / 'whole.db'}")
    upgrade(whole)
    import_folder(whole, folder)
    assert observations(engine) == observations(whole)
    assert [row[4:5] + row[7:] for row in contents(engine)["imports"]] == [
        row[4:5] + row[7:] for row in contents(whole)["imports"]
    ]
    whole.dispose()


def test_two_imports_at_once_both_go_in(engine: Engine, tmp_path: Path) -> None:
    questions = [(f"q{i}", f"Question number {i} asks what comes after {i * 31 % 977}.", "x", "") for i in range(800)]
    program = (
        "import sys; from pathlib import Path; from data.database import open_engine; "
        "from data.importers.long import import_folder; import_folder(open_engine(sys.argv[1]), Path(sys.argv[2]))"
    )
    running = []
    for name in ("one", "two"):
        rows = [(f"q{i}", f"{name}-{j}", (i + j) % 2) for j in range(15) for i in range(800)]
        folder = write_long(tmp_path / name, rows, questions=questions)
        running.append(subprocess.Popen([PYTHON, "-c", program, url_of(engine), str(folder)], cwd=ROOT))
    assert [process.wait(120) for process in running] == [0, 0]
    log = read_log(engine)
    assert (len(log.questions), len(log.models), len(log.cells)) == (800, 32, 24_000)


def test_read_folder_gives_the_same_log_as_sql(engine: Engine, tmp_path: Path) -> None:
    header = ("question_id", "model_name", "label", "output_chars")
    rows = [("q1", "small", 1, 40), ("q1", "small", 0, 80), ("q3", "unlisted", 1, -1)]
    folder = write_long(tmp_path / "tiny", rows, header=header)
    import_folder(engine, folder)
    value, stored = read_folder(folder, split="column"), read_log(engine)
    pd.testing.assert_frame_equal(value.cells, stored.cells)
    assert value.cells["output_tokens"].tolist() == pytest.approx([15.0, np.nan], nan_ok=True)
    for column in ("question_id", "prompt", "benchmark", "split"):
        assert value.questions[column].tolist() == stored.questions[column].tolist()
    assert value.models["model_name"].tolist() == stored.models["model_name"].tolist() == ["small", "large", "unlisted"]
    assert value.watermark == 0


def test_a_seeded_split_keeps_near_duplicates_together_and_ignores_the_rows_order(tmp_path: Path) -> None:
    questions = [(f"q{i}", f"Question {i} about {i * 37 % 101} and {i * 53 % 89}", "x", "train") for i in range(400)]
    questions += [(f"again{i}", f"QUESTION {i} about {i * 37 % 101} and {i * 53 % 89}", "x", "test") for i in range(99)]
    splits = []
    for name, order in (("forth", 1), ("back", -1)):
        folder = write_long(tmp_path / name, [("q1", "small", 1)], questions=questions[::order])
        table = read_folder(folder, split="seeded", seed=5).questions.set_index("question_id")["split"]
        assert all(table[f"q{i}"] == table[f"again{i}"] for i in range(99))
        splits.append(table.sort_index().to_dict())
    assert splits[0] == splits[1]
    other = read_folder(tmp_path / "forth", split="seeded", seed=6).questions.set_index("question_id")["split"]
    assert other.to_dict() != splits[0]
    assert {split: sum(1 for s in splits[0].values() if s == split) > 20 for split in ("train", "val", "test")} == {
        "train": True,
        "val": True,
        "test": True,
    }


def test_a_column_split_must_be_complete(tmp_path: Path) -> None:
    folder = write_long(tmp_path / "tiny", GOOD, questions=[*QUESTIONS[:2], (*QUESTIONS[2][:3], "")])
    with pytest.raises(LogFormatError, match="states no split for 1 questions, the first is q3"):
        read_folder(folder, split="column")
    write_csv(folder / "questions.csv", ("question_id", "prompt", "category"), [row[:3] for row in QUESTIONS])
    with pytest.raises(LogFormatError, match="no column split"):
        read_folder(folder, split="column")


def test_read_folder_hands_bad_rows_to_its_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_long(tmp_path / "tiny", [*GOOD, ("q1", "small", "x")])
    rejects = Rejects()
    assert len(read_folder(folder, rejects=rejects).cells) == 4
    assert rejects.first == ["correctness.csv line 6: label is 'x', not 0 or 1"]
    assert caplog.text == ""
    read_folder(folder)
    assert "1 bad rows left out, first: correctness.csv line 6" in caplog.text


def test_real_data_goes_in_whole_and_keeps_its_splits(sqlite_engine: Engine, tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "zeroeval"
    summary = import_folder(sqlite_engine, folder, rejects_folder=tmp_path)
    assert (summary.n_new, summary.n_rejected, summary.n_new_questions, summary.n_new_models) == (217_503, 0, 5_151, 50)
    assert summary.seconds < 60
    started = time.perf_counter()
    stored = read_log(sqlite_engine)
    assert time.perf_counter() - started < 10
    value = read_folder(folder, split="column")
    assert stored.questions["split"].tolist() == value.questions["split"].tolist()
    assert stored.cells["label"].sum() == value.cells["label"].sum()
    assert summary.n_conflicting == 0
