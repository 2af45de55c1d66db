"""Learning from a log's outcomes: what is read, what comes close, and that no forecaster is fitted on the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import Engine
from typer.testing import CliRunner

from data.observations import prompt_sha256
from embedrouter import app
from router.artifact import read_artifact
from router.encoder.llm2vec import Llm2VecEncoder
from tests.logs import write_long
from tests.planted import TOPICS, planted_log
from tests.stored import relabel, store_log
from tests.tiny_llama import N_TOKENS, tiny_llama
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import evaluate_folder
from training.learned_outcomes import FILE, leave_out_learned, read_learned, save_learned
from training.llm2vec.bundle import bundle
from training.llm2vec.checkpoint_folders import save_model
from training.llm2vec.convert import Settings, convert
from training.llm2vec.corpus import read_texts
from training.llm2vec.outcomes import Answered, alike_loss, draw_share, posterior_p_correct, read_answered
from training.llm2vec.recipe import Settings as BundleSettings
from training.llm2vec.recipe import Shape, Steps
from training.llm2vec.tokenizer import train_tokenizer
from training.table import comparison_table
from training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

PLANTED = planted_log(240, 8, seed=3)
DATA = Correctness.from_log(PLANTED.log)
TOPIC = np.array([TOPICS.index(str(topic)) for topic in DATA.benchmarks])
SETTINGS = Settings(
    max_tokens=32,
    mntp_steps=1,
    mntp_rows=8,
    mntp_tokens=16,
    simcse_steps=1,
    simcse_rows=8,
    simcse_tokens=16,
    outcome_steps=30,
    outcome_rows=24,
    outcome_tokens=32,
    outcome_rate=3e-3,
    lora_rank=0,
)
TINY_BUNDLE = BundleSettings(
    shape=Shape(n_tokens=500, hidden=32, layers=2, heads=2, feed_forward=48),
    n_generated=100,
    n_tokens=32,
    batch_tokens=512,
    simcse_rows=8,
    crop_rows=8,
    topic_rows=8,
    outcome_rate=3e-3,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outcomes") / "base"
    save_model(tiny_llama(), train_tokenizer(DATA.prompts, N_TOKENS), folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "notes.txt"
    path.write_text("\n\n".join(f"{prompt} {prompt}" for prompt in DATA.prompts), encoding="utf-8")
    return path


def write_folder(folder: Path, data: Correctness = DATA) -> Path:
    """Write a grid as a long-format folder."""
    rows = zip(data.prompts, data.benchmarks.tolist(), data.split.tolist(), strict=True)
    questions = [(f"q{i}", prompt, topic, split) for i, (prompt, topic, split) in enumerate(rows)]
    outcomes = [
        (f"q{n}", data.model_names[m], int(data.label[n, m])) for n, m in zip(*np.nonzero(data.observed), strict=True)
    ]
    return write_long(folder, outcomes, questions=questions, models=[(name, 1, 2) for name in data.model_names])


def test_a_posterior_finds_who_is_right_where_outcomes_are_missing() -> None:
    planted = planted_log(400, 20, observed=0.5, seed=1)
    data = Correctness.from_log(planted.log)
    p = posterior_p_correct(data, seed=0)
    hidden = ~data.observed
    likely = planted.p[:, planted.log.models["model_name"].argsort()] > 0.5
    assert p[hidden & likely].mean() > 0.75
    assert p[hidden & ~likely].mean() < 0.25


def test_questions_of_few_outcomes_are_not_learned_from() -> None:
    label = DATA.label.copy()
    label[:150, 4:] = np.nan
    answered = Answered.of(replace(DATA, label=label))
    assert answered.prompts == DATA.prompts[150:]
    label[:230] = np.nan
    with pytest.raises(TrainingError, match="10 questions with outcomes of 5 models: too few"):
        Answered.of(replace(DATA, label=label))


def test_the_loss_is_nought_where_cosines_say_what_outcomes_say() -> None:
    alike = torch.zeros((3, 2))
    assert float(alike_loss(torch.eye(3), alike, 1.0, 0.1)) == pytest.approx(0, abs=1e-6)
    p = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert float(alike_loss(right, p, 4.0, 1.0)) == pytest.approx(0, abs=1e-6)
    w = 1 / (1 + np.exp(-2))  # the first two weigh one another 1, against exp(-4 * 2 / 4)
    undecided = w * np.log(2 * w) + (1 - w) * np.log(2 * (1 - w))  # the first is now as far from either
    mistaken = (2 * w - 1) * np.log(w / (1 - w))  # the second lies beside the third
    decided = np.log(0.5) - 0.5 * np.log(w * (1 - w))  # the third, that should be as far from either, beside the second
    wrong = alike_loss(right[[2, 1, 0]], p, 4.0, 1.0)
    assert float(wrong) == pytest.approx((undecided + mistaken + decided) / 3, abs=1e-5)


def test_a_batch_of_one_question_teaches_nothing() -> None:
    vectors = torch.ones((1, 4), requires_grad=True)
    loss = alike_loss(vectors, torch.zeros((1, 2)), 1.0, 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert vectors.grad is not None
    assert not vectors.grad.any()


def test_a_share_is_drawn_by_groups_of_near_duplicates() -> None:
    data = replace(DATA, groups=np.arange(DATA.n_questions) // 3)
    drawn = draw_share(data, 0.25, seed=0)
    assert len(np.unique(drawn.groups)) == 20
    assert drawn.n_questions == 60
    assert set(draw_share(data, 0.25, seed=1).keys.tolist()) != set(drawn.keys.tolist())


def test_of_a_log_in_a_folder_or_in_sql_a_share_of_the_train_questions_is_read(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    store_log(sqlite_engine, PLANTED.log, "planted")
    train_prompts = {DATA.prompts[row] for row in DATA.part("train")}
    of_folder = read_answered(str(write_folder(tmp_path / "log")), 0.5, seed=0)
    of_sql = read_answered(sqlite_engine.url.render_as_string(hide_password=False), 0.5, seed=0)
    for answered in (of_folder, of_sql):
        assert set(answered.prompts) < train_prompts
        assert len(answered.prompts) == pytest.approx(len(train_prompts) / 2, abs=3)


def test_unseen_questions_that_the_same_models_get_right_come_close(base: Path, text: Path, tmp_path: Path) -> None:
    seen = np.arange(DATA.n_questions) < 160
    answered = Answered.of(DATA.rows(np.flatnonzero(seen)))
    before = convert(base, tmp_path / "before", texts=[text], settings=SETTINGS)
    after = convert(base, tmp_path / "after", texts=[text], answered=answered, settings=SETTINGS)
    assert list(before["stages"]) == ["bidirectional", "mntp", "simcse"]
    curve = after["stages"]["outcomes"]
    assert curve["loss_last"] < 0.5 * curve["loss_first"]
    same = TOPIC[~seen][:, None] == TOPIC[~seen]
    unseen = [prompt for prompt, known in zip(DATA.prompts, seen, strict=True) if not known]
    gaps = []
    for name in ("before", "after"):
        vectors = Llm2VecEncoder.load(tmp_path / name).encode(unseen)
        centred = vectors - vectors.mean(axis=0)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        cosine = unit @ unit.T
        gaps.append(cosine[same].mean() - cosine[~same].mean())
    assert gaps[1] > gaps[0] + 0.3
    assert read_learned(tmp_path / "after") == {prompt_sha256(prompt) for prompt in answered.prompts}
    assert read_learned(tmp_path / "after" / "work" / "outcomes" / "model") == answered.hashes
    assert not read_learned(tmp_path / "before")
    with pytest.raises(TrainingError, match="begun with another base"):
        convert(base, tmp_path / "after", texts=[text], settings=SETTINGS)


def test_what_a_base_has_learned_from_stays_listed(base: Path, text: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, outcome_steps=1)
    one, other = (Answered.of(DATA.rows(rows)) for rows in np.array_split(np.arange(DATA.n_questions), 2))
    convert(base, tmp_path / "one", texts=[text], answered=one, settings=settings)
    convert(tmp_path / "one/work/outcomes/model", tmp_path / "two", texts=[text], answered=other, settings=settings)
    assert read_learned(tmp_path / "two") == one.hashes | other.hashes


def test_the_bundle_learns_from_outcomes_last(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.llm2vec.bundle.documentation", lambda _n, _seed: [read_texts(text)])
    answered = Answered.of(DATA)
    figures = bundle(tmp_path / "a", answered=answered, steps=Steps(2, 2, 2, 2, 2, 20), settings=TINY_BUNDLE)
    assert list(figures["stages"])[-2:] == ["topics", "outcomes"]
    assert figures["stages"]["outcomes"]["loss_last"] < figures["stages"]["outcomes"]["loss_first"]
    assert figures["n_questions_with_outcomes"] == len(answered.prompts)
    assert read_learned(tmp_path / "a") == answered.hashes
    planned = bundle(tmp_path / "b", answered=answered, minutes=0.01, settings=TINY_BUNDLE)["steps"]
    assert min(planned.values()) >= 1
    with pytest.raises(TrainingError, match="begun with other texts"):
        bundle(tmp_path / "b", minutes=0.01, settings=TINY_BUNDLE)


@pytest.mark.parametrize("logs", [[], ["--logs", "log"]])
def test_steps_are_as_many_as_there_are_to_say(logs: list[str], tmp_path: Path) -> None:
    asked = ["llm2vec", "bundle", "--out", str(tmp_path), "--steps", "1,2,3,4,5" if logs else "1,2,3,4", *logs]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 2
    assert ("60,250,10,150,1200,300" in ran.output) == bool(logs)


def encoder_that_learned_from(folder: Path, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> str:
    save_learned(folder, [prompt_sha256(DATA.prompts[row]) for row in rows])
    return f"llm2vec:{folder}"


def test_outcomes_that_the_encoder_learned_from_are_left_out_with_their_near_duplicates(tmp_path: Path) -> None:
    data = replace(DATA, groups=np.arange(DATA.n_questions) // 2, split=np.where(DATA.split == "val", "val", "train"))
    data.split[100] = "test"  # near-duplicate of 101, which was learned from
    spec = encoder_that_learned_from(tmp_path, np.array([0, 50, 101]))
    for named in (spec, f"{spec}#windows=4", f"sentence:{tmp_path}"):
        left = leave_out_learned(data, named)
        hidden = np.flatnonzero(~left.data.observed.any(axis=1))
        assert hidden.tolist() == [0, 1, 50, 51, 101]
        assert left.n_left_out == 5
    for named in ("lsa", "lsa+bundled#windows=2", f"llm2vec:{tmp_path / 'another'}", "remote:http://127.0.0.1:1/v1#x"):
        assert leave_out_learned(data, named).data is data


def test_an_encoder_that_learned_from_test_questions_or_from_all_others_is_refused(tmp_path: Path) -> None:
    spec = encoder_that_learned_from(tmp_path, DATA.part("test")[:3])
    with pytest.raises(TrainingError, match=rf"learned from the outcomes of 3 of the {len(DATA.part('test'))} test"):
        leave_out_learned(DATA, spec)
    spec = encoder_that_learned_from(tmp_path, np.flatnonzero(DATA.split != "test")[1:])
    with pytest.raises(TrainingError, match="none is left to fit"):
        leave_out_learned(DATA, spec)
    (tmp_path / FILE).write_text("[]", encoding="utf-8")
    with pytest.raises(TrainingError, match="which says what the encoder has learned from"):
        leave_out_learned(DATA, spec)


def test_no_fit_depends_on_outcomes_that_the_encoder_learned_from(
    base: Path, text: Path, tmp_path: Path, sqlite_engine: Engine
) -> None:
    answered = Answered.of(draw_share(DATA.rows(DATA.part("train")), 0.5, seed=0))
    folder = tmp_path / "encoder"
    convert(base, folder, texts=[text], answered=answered, settings=replace(SETTINGS, outcome_steps=2))
    store_log(sqlite_engine, PLANTED.log, "planted")
    trained = train(sqlite_engine, tmp_path / "artifacts", encoder_spec=f"llm2vec:{folder}")
    protocol = trained.comparison["protocol"]
    assert protocol["n_left_out"] >= len(answered.prompts)
    logged = read_artifact(trained.artifact.folder).logged_questions()
    assert logged is not None
    assert len(logged.keys) == np.count_nonzero(DATA.split != "test") - protocol["n_left_out"]
    turned = PLANTED.log.questions["prompt"].isin(answered.prompts).to_numpy()[PLANTED.log.cells["question"]]
    label = PLANTED.log.cells["label"].to_numpy()
    of_lies = Correctness.from_log(relabel(PLANTED.log, np.where(turned, 1 - label, label)))
    assert (of_lies.label != DATA.label).any()
    paths = (write_folder(tmp_path / "true"), write_folder(tmp_path / "lies", of_lies))
    figures = [evaluate_folder(path, encoder_spec=f"llm2vec:{folder}") for path in paths]
    assert figures[0]["methods"]["embedrouter"]["nll"] == figures[1]["methods"]["embedrouter"]["nll"]
    assert figures[0]["methods"]["model_mean"]["nll"] == figures[1]["methods"]["model_mean"]["nll"]
    notes = " ".join(str(part) for part in comparison_table(figures[0]).renderables)
    assert f"{figures[0]['protocol']['n_left_out']:,} questions were left out of the fit" in notes
    (folder / FILE).unlink()
    everything = evaluate_folder(paths[1], encoder_spec=f"llm2vec:{folder}")
    assert everything["methods"]["model_mean"]["nll"] != figures[0]["methods"]["model_mean"]["nll"]
    assert json.loads((folder / "training.json").read_text("utf-8"))["n_questions_with_outcomes"] == len(
        answered.prompts
    )


def test_the_verb_says_what_training_will_leave_out(base: Path, text: Path, tmp_path: Path) -> None:
    logs, out = write_folder(tmp_path / "log"), tmp_path / "out"
    steps = [f"--{step}-steps=1" for step in ("mntp", "simcse", "outcome")]
    given = ["--text", str(text), "--logs", str(logs), "--logs-share", "0.3", "--full", *steps]
    ran = CliRunner().invoke(app, ["llm2vec", "convert", str(base), "--out", str(out), *given])
    assert ran.exit_code == 0, ran.output
    n = len(read_learned(out))
    assert n == pytest.approx(0.3 * len(DATA.part("train")), abs=2)
    assert f"it has learned from the outcomes of {n} questions" in " ".join(ran.output.split())
