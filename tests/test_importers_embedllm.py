"""EmbedLLM's files: every observation is kept, and a question's split is that of its first file."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from data.errors import LogFormatError
from data.importers.embedllm import import_folder
from data.queries import read_log, repeat_rate
from tests.logs import contents, write_csv

HEADER = ("prompt_id", "model_id", "category_id", "label", "prompt", "model_name", "category")
LONG = "An experienced sailor measures the wind on deck at dawn, at noon and at dusk, and writes all of it down twice. "
ROWS = {
    "train": [
        (0, 0, 3, 1, "What is two and two?", "org__tiny", "asdiv"),
        (0, 1, 3, 0, "What is two and two?", "org__huge", "asdiv"),
        (0, 0, 7, 1, "What is two and two?", "org__tiny", "gpqa_main"),  # the same again, by another task
        (0, 0, 8, 0, "What is two and two?", "org__tiny", "gpqa_extended"),  # and with the other label
        (1, 1, 3, 1, LONG, "org__huge", "logiqa"),
    ],
    "val": [(2, 0, 5, 1, "Which metal is liquid at room temperature?", "org__tiny", "mmlu_chemistry")],
    "test": [
        (3, 0, 5, 0, "Who wrote the Iliad?", "org__tiny", "mmlu_history"),
        (4, 0, 3, 0, LONG + "Why?", "org__tiny", "logiqa"),  # a near-duplicate of a train question
        (0, 1, 3, 1, "What is two and two?", "org__huge", "asdiv"),  # a train question in the test file
    ],
}


def write(folder: Path, header: tuple[str, ...] = HEADER, keep: tuple[int, ...] = tuple(range(7))) -> Path:
    folder.mkdir(parents=True)
    for split, rows in ROWS.items():
        write_csv(folder / f"{split}.csv", [header[at] for at in keep], [[row[at] for at in keep] for row in rows])
    return folder


def write_orders(folder: Path) -> None:
    prompts = {row[0]: row[4] for rows in ROWS.values() for row in rows}
    models = {row[1]: row[5] for rows in ROWS.values() for row in rows}
    write_csv(folder / "question_order.csv", ("prompt_id", "prompt"), list(prompts.items()))
    write_csv(folder / "model_order.csv", ("model_id", "model_name"), list(models.items()))


def test_repeated_and_conflicting_labels_are_all_kept_and_aggregated_when_read(engine: Engine, tmp_path: Path) -> None:
    summary = import_folder(engine, write(tmp_path / "EmbedLLM"), rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_repeated, summary.n_conflicting, summary.n_rejected) == (9, 0, 2, 0)
    assert (summary.n_new_questions, summary.n_new_models, summary.source) == (5, 2, "embedllm:EmbedLLM")
    log = read_log(engine)
    assert log.models["model_name"].tolist() == ["org__huge", "org__tiny"]
    first = log.cells[log.cells["question"] == 0].set_index("model")
    assert first["label"].to_dict() == {0: 0.5, 1: pytest.approx(2 / 3)}
    assert first["n_observations"].to_dict() == {0: 2, 1: 3}
    assert repeat_rate(engine).n_pairs == 2


def test_a_model_called_auto_is_set_aside_with_its_outcomes(engine: Engine, tmp_path: Path) -> None:
    folder = write(tmp_path / "EmbedLLM", keep=(0, 1, 2, 3, 4, 6))
    write_csv(folder / "model_order.csv", ("model_id", "model_name"), [(0, "auto"), (1, " org__huge "), (2, "m" * 300)])
    summary = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_rejected) == (3, 6)
    assert "model_name is 'auto': no model can be called auto" in summary.first_rejects[0]
    assert read_log(engine).models["model_name"].tolist() == ["org__huge"]


def test_the_file_is_the_split_and_near_duplicates_stay_with_the_first(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, write(tmp_path / "EmbedLLM"))
    questions = read_log(engine).questions.set_index("question_id")
    assert questions["split"].to_dict() == {"0": "train", "1": "train", "2": "val", "3": "test", "4": "train"}
    assert questions["benchmark"].to_dict()["0"] == "asdiv"


def test_the_same_import_twice_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    folder = write(tmp_path / "EmbedLLM")
    import_folder(engine, folder)
    before = contents(engine)
    again = import_folder(engine, folder)
    assert contents(engine) == before
    assert (again.n_new, again.n_repeated) == (0, 9)


def test_names_and_prompts_may_stand_in_files_of_their_own(engine: Engine, tmp_path: Path) -> None:
    whole = import_folder(engine, write(tmp_path / "whole"), source="same")
    bare = write(tmp_path / "bare", keep=(0, 1, 2, 3))
    write_orders(bare)
    summary = import_folder(engine, bare, source="same")
    assert whole.n_new == 9
    assert (summary.n_new, summary.n_repeated, summary.n_new_questions) == (0, 9, 0)


def test_category_ids_serve_where_there_are_no_names(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, write(tmp_path / "ids", keep=(0, 2, 3, 4, 5)))
    assert read_log(engine).questions["benchmark"].tolist() == ["3", "3", "5", "5", "3"]


def test_bad_rows_are_set_aside_once(engine: Engine, tmp_path: Path) -> None:
    folder = write(tmp_path / "bad")
    with (folder / "val.csv").open("a") as file:
        file.write("5,0,5,perhaps,Is this graded?,org__tiny,x\n6,0,5,1,,org__tiny,x\n7,0,5,1\n")
    summary = import_folder(engine, folder, rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_rejected) == (9, 3)
    assert summary.first_rejects == (
        "val.csv line 3: label is 'perhaps', not 0 or 1",
        "val.csv line 4: prompt is empty",
        "val.csv line 5: 4 columns, not 7",
    )


def test_an_id_that_no_order_file_knows_is_set_aside(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = write(tmp_path / "bare", keep=(0, 1, 3, 4))
    write_csv(folder / "model_order.csv", ("model_id", "model_name"), [(0, "org__tiny")])
    summary = import_folder(sqlite_engine, folder, rejects_folder=tmp_path / "rejects")
    assert (summary.n_new, summary.n_rejected) == (6, 3)
    assert summary.first_rejects[0] == "train.csv line 3: model_id 1 is not in model_order.csv"


def test_what_is_no_embedllm_folder_is_refused(sqlite_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match="does not exist: an EmbedLLM folder holds"):
        import_folder(sqlite_engine, tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing")
    with pytest.raises(LogFormatError, match=r"holds notes\.txt: an EmbedLLM folder"):
        import_folder(sqlite_engine, tmp_path / "other")
    with pytest.raises(LogFormatError, match=r"lacks the column model_name, and no model_order\.csv"):
        import_folder(sqlite_engine, write(tmp_path / "nameless", keep=(0, 1, 3, 4)))
