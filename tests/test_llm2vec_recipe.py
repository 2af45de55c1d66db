"""The recipe on tiny random models: each stage learns, resumes where it stood, and leaves what serving can open."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DataCollatorForLanguageModeling

from data.demo.generate import generate
from router.encoder.checkpoint import Checkpoint
from router.encoder.llm2vec import Llm2VecEncoder
from router.encoder.pooling import pool
from router.errors import EncoderError
from training.errors import TrainingError
from training.llm2vec.batches import Batches, Size, pad_rows
from training.llm2vec.bundle import bundle
from training.llm2vec.checkpoint_folders import make_bidirectional, open_model, open_tokenizer, save_model
from training.llm2vec.convert import Settings, convert
from training.llm2vec.corpus import Corpus, generated_questions, read_texts
from training.llm2vec.loop import Schedule, run_steps
from training.llm2vec.lora import merge_lora, with_lora
from training.llm2vec.objectives import UNPREDICTED, Mntp, SimCse, last_states, token_loss
from training.llm2vec.pairs import Pair, read_pairs
from training.llm2vec.recipe import Settings as BundleSettings
from training.llm2vec.recipe import Shape, Steps
from training.llm2vec.similarity import tell_apart
from training.llm2vec.tokenizer import mask_token_of, tokenize, train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [question.prompt for question in generate(100, 0)]
TINY = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = Settings(
    max_tokens=64,
    mntp_steps=4,
    mntp_rows=8,
    mntp_tokens=32,
    simcse_steps=3,
    simcse_rows=8,
    simcse_tokens=32,
    crop_steps=2,
    pair_steps=2,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture
def base(tmp_path: Path, tokenizer: Any) -> Path:
    return write_base(tmp_path / "base", tokenizer)


def write_base(folder: Path, tokenizer: Any, architecture: str = "llama") -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **TINY)
    save_model(AutoModelForCausalLM.from_config(config), tokenizer, folder)  # type: ignore[no-untyped-call]
    return folder


def write_text(path: Path) -> Path:
    path.write_text("\n\n".join(text + " " + text[::-1] for text in TEXTS), encoding="utf-8")
    return path


def batches_of(tokenizer: Any, n_tokens: int = 24) -> Batches:
    return Batches(tokenize(tokenizer, TEXTS), max_tokens=n_tokens, size=Size(256, 16), seed=0, pad=0)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_each_epoch_deals_every_row_once_and_the_same_step_is_the_same_batch(tokenizer: Any) -> None:
    batches = batches_of(tokenizer)
    for epoch in range(2):
        dealt = [row for place in range(batches.n_batches) for row in batches(epoch * batches.n_batches + place).rows]
        assert sorted(dealt) == list(range(len(TEXTS)))
    again = batches_of(tokenizer)(7)
    assert torch.equal(batches(7).ids, again.ids)
    assert batches(0).rows != batches(batches.n_batches).rows


def test_a_batch_keeps_its_size_and_the_window_of_a_long_text_moves() -> None:
    batches = Batches([list(range(1, 101))], max_tokens=10, size=Size(10, 1), seed=0, pad=0)
    starts = {int(batches(step).ids[0, 0]) for step in range(20)}
    assert batches(0).ids.shape == (1, 10)
    assert len(starts) > 5


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_the_masked_loss_is_the_stock_models(architecture: str, tmp_path: Path, tokenizer: Any) -> None:
    model = open_model(write_base(tmp_path / "base", tokenizer, architecture), "cpu").eval()
    make_bidirectional(model)
    torch.manual_seed(0)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.3)
    rows = [{"input_ids": row} for row in tokenize(tokenizer, TEXTS[:6])]
    stock = collate(rows)
    stock["labels"][:, 0] = UNPREDICTED
    shown = pad_rows([row.tolist() for row in stock["input_ids"]], 0)
    mask = stock["attention_mask"].bool()
    predicted = stock["labels"] != UNPREDICTED
    with torch.no_grad():
        wanted = model(**stock).loss
        ours = token_loss(
            model, type(shown)(shown.ids, mask, ()), torch.where(predicted, stock["labels"], 0), predicted
        )
    assert float(ours) == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.parametrize(("share", "all_masked"), [(0.2, False), (0.8, True)])
def test_the_share_is_masked_and_nothing_else_is_touched(share: float, all_masked: bool) -> None:
    batch = pad_rows([list(range(10, 110)) for _ in range(50)] + [[10, 11]], 0)
    shown, chosen = Mntp(3, share, all_masked).corrupt(batch, 400, torch.Generator().manual_seed(0))
    real = batch.mask.clone()
    real[:, 0] = False
    assert float(chosen[real].float().mean()) == pytest.approx(share, abs=0.02)
    assert not chosen[~real].any()
    assert torch.equal(shown[~chosen], batch.ids[~chosen])
    hidden = float((shown[chosen] == 3).float().mean())
    assert hidden == pytest.approx(1.0 if all_masked else 0.8, abs=0.03)


def test_pooling_reads_the_rows_tokens_alone() -> None:
    states = torch.tensor([[[1.0], [2.0], [6.0], [99.0]]])
    mask = torch.tensor([[True, True, True, False]])
    assert pool(states, mask, "mean").item() == pytest.approx(3)
    assert pool(states, mask, "weighted").item() == pytest.approx((1 + 4 + 18) / 6)
    assert pool(states, mask, "last").item() == 6
    assert pool(states.flip(1), mask.flip(1), "last").item() == 1


def test_simcse_is_lost_between_equal_texts_and_won_between_unlike_ones(base: Path) -> None:
    model = open_model(base, "cpu").eval()
    same = pad_rows([[5, 6, 7]] * 4, 0)
    unlike = pad_rows([[5, 6, 7], [50, 60, 70], [150, 160, 170], [250, 260, 270]], 0)
    with torch.no_grad():
        assert float(SimCse()(model, same, torch.Generator())) == pytest.approx(np.log(4), abs=1e-4)
        assert float(SimCse()(model, unlike, torch.Generator())) < 0.1


def test_a_loss_falls_and_its_curve_is_written(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    model = open_model(base, "cpu")
    make_bidirectional(model)
    seen: list[int] = []
    losses = run_steps(
        model,
        Mntp(mask_token_of(tokenizer)),
        batches_of(tokenizer),
        Schedule(40, 5e-3, n_warmup=4),
        tmp_path / "mntp",
        seed=0,
        on_step=lambda done, n_steps, loss: seen.append(done),  # noqa: ARG005
    )
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert seen == list(range(1, 41))
    with (tmp_path / "mntp" / "losses.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses, abs=1e-4)


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Callable[[int, int, float], None]:
    def on_step(done: int, _n_steps: int, _loss: float) -> None:
        if done == step:
            raise StoppedError

    return on_step


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    lora_rank: int, base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    if lora_rank:
        pytest.importorskip("peft")

    def run(folder: str, stop: int | None) -> tuple[list[float], dict[str, torch.Tensor]]:
        model = open_model(base, "cpu", attention_dropout=0.3)
        make_bidirectional(model)
        if lora_rank:
            torch.manual_seed(0)
            with_lora(model, lora_rank)
        losses = run_steps(
            model,
            SimCse(),
            batches_of(tokenizer),
            Schedule(6, 1e-3, n_warmup=2, weight_decay=0.01),
            tmp_path / folder,
            seed=0,
            on_step=stop_at(stop) if stop else lambda *_: None,
            save_every_s=0,
        )
        return losses, weights(model)

    losses, whole = run("whole", None)
    with pytest.raises(StoppedError):
        run("parts", 4)  # its checkpoint is of step 3
    resumed_losses, resumed = run("parts", None)
    assert resumed_losses == losses
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_lora_learns_and_merges_into_the_plain_model(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = open_model(base, "cpu")
    make_bidirectional(model)
    names = set(weights(model))
    before = model.get_input_embeddings().weight.detach().clone()
    batch = batches_of(tokenizer)(0)
    with_lora(model, 4)
    run_steps(model, Mntp(3), batches_of(tokenizer), Schedule(5, 1e-2), tmp_path / "mntp", seed=0)
    model.eval()
    with torch.no_grad():
        apart = last_states(model, batch)
        merged = merge_lora(model)
        together = last_states(merged, batch)
    assert float((apart - together).abs().max()) < 1e-5
    assert set(weights(merged)) == names
    assert torch.equal(model.get_input_embeddings().weight, before)  # frozen


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_converting_ends_as_a_sentence_transformer_that_reads_both_ways(
    architecture: str, tmp_path: Path, tokenizer: Any
) -> None:
    base = write_base(tmp_path / "base", tokenizer, architecture)
    text = write_text(tmp_path / "notes.txt")
    out = tmp_path / "out"
    with pytest.raises(EncoderError, match="causal checkpoint"):
        Llm2VecEncoder.load(base)
    lora = {"lora_rank": 4} if architecture == "llama" else {"lora_rank": 0}
    if lora["lora_rank"]:
        pytest.importorskip("peft")
    figures = convert(base, out, texts=[text], settings=Settings(**{**vars(SMALL), **lora}))
    assert list(figures["stages"]) == ["bidirectional", "mntp", "simcse", "crops"]
    assert figures["stages"]["mntp"]["n_steps"] == 4
    modules = json.loads((out / "modules.json").read_text("utf-8"))
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling"]
    assert json.loads((out / "1_Pooling" / "config.json").read_text("utf-8"))["pooling_mode_mean_tokens"] is True
    assert json.loads((out / "config.json").read_text("utf-8"))["is_causal"] is False
    right = Llm2VecEncoder.load(out)
    left = Llm2VecEncoder.load(out, padding_side="left")
    vectors = right.encode(TEXTS[:8])
    assert float(np.abs(vectors - left.encode(TEXTS[:8])).max()) < 1e-4
    assert float(np.abs(vectors - np.vstack([right.encode([text]) for text in TEXTS[:8]])).max()) < 1e-4
    states = AutoModel.from_pretrained(out, dtype=torch.float32)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    mean = states(input_ids=ids).last_hidden_state.mean(dim=1).detach()
    assert float((mean - torch.tensor(vectors[:1])).abs().max()) < 1e-4  # as SentenceTransformer would pool it


def test_a_finished_conversion_is_not_done_again_and_another_is_refused(base: Path, tmp_path: Path) -> None:
    text, out = write_text(tmp_path / "notes.txt"), tmp_path / "out"
    settings = Settings(**{**vars(SMALL), "lora_rank": 0})
    first = convert(base, out, texts=[text], settings=settings)
    stamp = (out / "work" / "mntp" / "losses.csv").stat().st_mtime_ns
    assert convert(base, out, texts=[text], settings=settings) == first
    assert (out / "work" / "mntp" / "losses.csv").stat().st_mtime_ns == stamp
    with pytest.raises(TrainingError, match="begun with another base"):
        convert(base, out, texts=[text], settings=SMALL)
    with pytest.raises(TrainingError, match="other texts"):
        convert(base, out, texts=[text], pairs=[Pair("one", "other")] * 2, settings=settings)
    text.write_text(text.read_text("utf-8")[::-1], encoding="utf-8")  # as many others
    with pytest.raises(TrainingError, match="other texts"):
        convert(base, out, texts=[text], settings=settings)


def test_pairs_draw_together(base: Path, tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "pairs.csv"
    rows = "".join(f'"{TEXTS[i]}","{TEXTS[i + 30]}"\n' for i in range(30) if '"' not in TEXTS[i] + TEXTS[i + 30])
    path.write_text("anchor,positive\n" + rows, encoding="utf-8")
    pairs = read_pairs(path)
    settings = Settings(
        **{**vars(SMALL), "lora_rank": 0, "mntp_steps": 1, "simcse_steps": 1, "pair_steps": 20, "pair_rate": 3e-3}
    )
    out = tmp_path / "out"
    figures = convert(base, out, texts=[write_text(tmp_path / "n.txt")], pairs=pairs, settings=settings)
    assert figures["stages"]["pairs"]["loss_last"] < figures["stages"]["pairs"]["loss_first"] - 0.5
    encoder = Llm2VecEncoder.load(out)
    sides = (encoder.encode([getattr(pair, side) for pair in pairs]) for side in ("anchor", "positive"))
    found, _ = tell_apart(*sides)
    assert found > 3 / len(pairs)
    path.write_text("question,answer\na,b\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="pairs need anchor and positive"):
        read_pairs(path)
    assert Pair("a", "b").positive == "b"


TINY_BUNDLE = BundleSettings(
    shape=Shape(n_tokens=500, hidden=32, layers=2, heads=2, feed_forward=48),
    n_generated=100,
    n_documentation=40_000,
    n_tokens=32,
    batch_tokens=512,
    learning_rate=2e-3,
    simcse_rows=8,
    crop_rows=8,
    topic_rows=8,
)


def test_the_bundle_is_made_from_scratch_and_again_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_text(tmp_path / "notes.txt")
    monkeypatch.setattr("training.llm2vec.bundle.documentation", lambda _n, _seed: [read_texts(text)])
    steps = Steps(20, 20, 2, 10, 10)
    figures = bundle(tmp_path / "a", steps=steps, settings=TINY_BUNDLE)
    stages = figures["stages"]
    assert list(stages) == ["random", "causal", "bidirectional", "mntp", "simcse", "crops", "topics"]
    assert stages["causal"]["loss_last"] < stages["causal"]["loss_first"] - 0.2
    assert stages["crops"]["loss_last"] < stages["crops"]["loss_first"]
    assert stages["topics"]["loss_last"] < stages["topics"]["loss_first"]
    assert stages["mntp"]["masked_loss"] < stages["random"]["masked_loss"] - 0.2
    with pytest.raises(StoppedError):
        bundle(
            tmp_path / "b",
            steps=steps,
            settings=TINY_BUNDLE,
            on_stage=lambda name: stop_at(11 if name == "mntp" else 0),
            save_every_s=0,
        )
    assert bundle(tmp_path / "b", minutes=1, settings=TINY_BUNDLE)["stages"] == stages  # its plan was kept
    fingerprints = {Checkpoint.find(tmp_path / name).fingerprint() for name in ("a", "b")}
    assert len(fingerprints) == 1
    with pytest.raises(TrainingError, match="begun with other texts"):
        bundle(tmp_path / "b", texts=[text], settings=TINY_BUNDLE)
    bundle(tmp_path / "c", steps=Steps(1, 1, 1, 1, 1), settings=replace(TINY_BUNDLE, whitening=1.0))
    prompts = [question.prompt for question in generate(100, 7_001)]  # that it learned from
    spreads = []
    for name in ("a", "c"):
        variance = np.linalg.eigvalsh(np.cov(Llm2VecEncoder.load(tmp_path / name).encode(prompts).T))
        spreads.append(variance[-1] / np.median(variance))
    assert spreads[1] < 3 < spreads[0]


def test_minutes_become_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "training.llm2vec.bundle.documentation", lambda _n, _seed: [read_texts(write_text(tmp_path / "n.txt"))]
    )
    figures = bundle(tmp_path / "out", minutes=0.01, settings=TINY_BUNDLE)
    assert min(figures["steps"][name] for name in ("causal", "mntp", "simcse", "crops", "topics")) >= 1
    assert figures["steps"]["outcomes"] == 0  # without logs
    assert json.loads((tmp_path / "out" / "work" / "plan.json").read_text("utf-8"))["mntp"] == figures["steps"]["mntp"]
    with pytest.raises(TrainingError, match="begun with the steps"):
        bundle(tmp_path / "out", steps=Steps(1, 1, 1, 1, 1_000), settings=TINY_BUNDLE)


def test_a_bundle_that_was_interrupted_while_it_planned_begins_anew_and_only_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_text(tmp_path / "n.txt")
    monkeypatch.setattr("training.llm2vec.bundle.documentation", lambda _n, _seed: [read_texts(text)])
    timed: list[int] = []

    def interrupted(*arguments: object, **options: object) -> list[float]:
        timed.append(len(list((tmp_path / "out" / "work").glob("trial/*/checkpoint.safetensors"))))
        if len(timed) == 2:
            raise KeyboardInterrupt
        losses: list[float] = run_steps(*arguments, **options)  # type: ignore[arg-type]
        return losses

    monkeypatch.setattr("training.llm2vec.bundle.run_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundle(tmp_path / "out", minutes=0.01, settings=TINY_BUNDLE)
    with pytest.raises(TrainingError, match="begun with other texts"):
        bundle(tmp_path / "out", texts=[text], minutes=0.01, settings=TINY_BUNDLE)
    bundle(tmp_path / "out", minutes=0.01, settings=TINY_BUNDLE)
    assert timed[:4] == [0, 1, 0, 1]  # what was timed before does not count


def test_of_a_log_only_train_questions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log" / "questions.csv"
    path.parent.mkdir()
    path.write_text("question_id,prompt,split\n1,seen,train\n2,chosen on,val\n3,unseen,test\n", encoding="utf-8")
    assert read_texts(path.parent).texts == ("seen",)
    path.write_text("question_id,prompt\n1,seen\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="lacks a prompt or a split column"):
        read_texts(path.parent)


def test_generated_questions_are_none_of_the_demos_unseen_ones() -> None:
    source = generated_questions(300)
    assert len(source.texts) > 250
    assert not set(source.texts) & {question.prompt for question in generate(2_000, 1)}


def test_held_out_texts_are_not_learned_from() -> None:
    corpus = Corpus.of([generated_questions(300)])
    assert len(corpus.held_out) > 0
    assert not set(corpus.texts) & set(corpus.held_out)
    with pytest.raises(TrainingError, match="too few"):
        Corpus.of([])


def test_a_tokenizer_without_a_mask_token_masks_with_the_blank(tokenizer: Any, base: Path) -> None:
    assert mask_token_of(tokenizer) == 3
    plain = open_tokenizer(base)
    plain.mask_token = None
    assert mask_token_of(plain) == plain.get_vocab()["_"]


@pytest.mark.parametrize("file", ["adapter_config.json", None])
def test_what_is_no_whole_checkpoint_is_refused(file: str | None, tmp_path: Path) -> None:
    if file:
        (tmp_path / file).write_text("{}", encoding="utf-8")
    with pytest.raises(TrainingError, match="merge it into its base model" if file else "nothing is fetched"):
        open_model(tmp_path, "cpu")


def test_alike_rows_are_told_from_unlike_ones() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 8)).astype(np.float32)
    assert tell_apart(rows, rows) == (1.0, 1.0)
    assert tell_apart(rows, rng.normal(size=(50, 8)).astype(np.float32))[1] == pytest.approx(0.5, abs=0.1)
    assert functional.cosine_similarity(torch.tensor(rows), torch.tensor(rows)).min() > 0.99
