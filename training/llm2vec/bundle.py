"""The bundled encoder, from scratch: own tokenizer, a small Llama that learns to predict tokens, then LLM2Vec's steps.

What it reads is `corpus`'s matter, what the stages are `recipe`'s, how one runs `stages`'s. A run that was interrupted
goes on where it stood.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from router.encoder.dense import Dense
from training.errors import TrainingError
from training.learned_outcomes import save_learned
from training.llm2vec.checkpoint_folders import export, open_model, open_tokenizer, save_model
from training.llm2vec.corpus import Corpus, digest_of, documentation, generated_questions, read_texts
from training.llm2vec.latent import latent_embeddings
from training.llm2vec.loop import SAVE_EVERY_S, OnStage, no_bars, run_steps
from training.llm2vec.objectives import Mntp
from training.llm2vec.outcomes import Answered
from training.llm2vec.ranks import ALONE, Ranks
from training.llm2vec.recipe import SERVED_TOKENS, Recipe, Settings, Steps
from training.llm2vec.similarity import encode_texts
from training.llm2vec.stages import Evaluation, Run
from training.llm2vec.tokenizer import mask_token_of, pad_token_of, tokenize, train_tokenizer
from training.llm2vec.whitening import whiten

N_TRIAL = 4  # steps timed to plan the rest
N_EVALUATED = 200  # held-out texts
N_WHITENED = 2_000  # questions that the directions are evened out on
RESIDUAL = 0.1  # of what each layer adds at the start: its tokens' directions are worth more than random weights
# of the time, relative to one another
SHARES = {"causal": 0.1, "mntp": 0.2, "simcse": 0.02, "crops": 0.13, "topics": 0.55, "outcomes": 0.2}


def bundle(
    out: Path,
    *,
    texts: Sequence[Path] = (),
    answered: Answered | None = None,
    minutes: float = 40,
    steps: Steps | None = None,
    settings: Settings | None = None,
    device: str = "cpu",
    on_stage: OnStage = no_bars,
    save_every_s: float = SAVE_EVERY_S,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Make the encoder in `out`; its figures, also written to out/training.json.

    answered: questions whose outcomes it learns from at last, if any; out/learned_outcomes.json lists them, and no
    forecaster is fitted on them. steps: None plans as many as fit into the minutes on this machine. ranks: several
    processes give the same arguments, and each step reads as many batches. The same steps, texts, outcomes, settings
    and number of processes give the same encoder.
    """
    settings = settings or Settings()
    work = out / "work"
    corpus = _read_corpus(texts, settings)
    named = _fingerprint(corpus, settings, answered)
    questions = _questions(corpus, len(texts))
    if ranks.is_first:
        _begin(work, named, ranks)
        _start(work, corpus, questions, settings)
    ranks.wait()
    tokenizer = open_tokenizer(work / "start")
    start = open_model(work / "start", "cpu")
    stages_of = Recipe(
        tokenizer,
        sequences=tokenize(tokenizer, corpus.texts),
        questions=tokenize(tokenizer, questions),
        directions=start.get_input_embeddings().weight.detach().numpy(),
        settings=settings,
        answered=answered,
    )
    planned = _planned(work / "plan.json", steps, lambda: _plan(work, stages_of, minutes, device, ranks), ranks)
    stages = stages_of(planned)
    masking = Mntp(mask_token_of(tokenizer), settings.masked)
    evaluation = Evaluation(corpus.held_out[:N_EVALUATED], masking, "mean", SERVED_TOKENS, pad_token_of(tokenizer))
    run = Run(work, tokenizer, evaluation, device, settings.seed, on_stage, save_every_s, ranks)
    last = run.stages(work / "start", stages)
    if ranks.is_first:
        model = open_model(last, "cpu")
        for folder in (last, out):
            save_learned(folder, answered.hashes if answered else ())
        dense = None
        if settings.whitening:
            dense = _whiten(model, tokenizer, questions, settings)
        export(model, tokenizer, out, pooling="mean", max_tokens=SERVED_TOKENS, dtype=torch.bfloat16, dense=dense)
        figures = {
            "steps": asdict(planned),
            "settings": asdict(settings),
            "sources": [
                {"name": s.name, "licence": s.licence, "n_texts": len(s.texts), "n_characters": s.n_characters}
                for s in corpus.sources
            ],
            "n_questions_with_outcomes": len(answered.prompts) if answered else 0,
            "n_parameters": sum(parameter.numel() for parameter in model.base_model.parameters()),
            "stages": run.figures(stages),
        }
        (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    ranks.wait()
    written: dict[str, Any] = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return written


def _read_corpus(texts: Sequence[Path], settings: Settings) -> Corpus:
    sources = [read_texts(path) for path in texts]
    sources.append(generated_questions(settings.n_generated))
    return Corpus.of([*sources, *documentation(settings.n_documentation, settings.seed)])


def _questions(corpus: Corpus, n_given: int) -> list[str]:
    """What it learns to tell apart: the texts that were given and the generated questions, no documentation.

    Documentation lies elsewhere than questions, which are what will be asked.
    """
    asked = dict.fromkeys(text for source in corpus.sources[: n_given + 1] for text in source.texts)
    learned = set(corpus.texts)
    return [text for text in asked if text in learned]


def _start(work: Path, corpus: Corpus, questions: Sequence[str], settings: Settings) -> None:
    """Train the tokenizer and draw the weights, once; embeddings start at the questions' latent directions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if (work / "start").is_dir():
        return
    tokenizer = train_tokenizer(corpus.texts, settings.shape.n_tokens)
    torch.manual_seed(settings.seed)
    shape = settings.shape
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    work.mkdir(parents=True, exist_ok=True)
    model = LlamaForCausalLM(config)
    embeddings = latent_embeddings(tokenize(tokenizer, questions), len(tokenizer), shape.hidden, settings.seed)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(embeddings))
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(RESIDUAL)
            layer.mlp.down_proj.weight.mul_(RESIDUAL)
    save_model(model, tokenizer, work / "start")


def _whiten(model: Any, tokenizer: Any, texts: Sequence[str], settings: Settings) -> Dense:
    """Whiten by some of the questions."""
    drawn = np.random.default_rng(settings.seed).permutation(len(texts))[:N_WHITENED]
    some = [texts[i] for i in drawn]
    (vectors,) = encode_texts(model, tokenizer, some, ["mean"], SERVED_TOKENS, pad_token_of(tokenizer))
    return whiten(vectors, settings.whitening)


def _begin(work: Path, named: str, ranks: Ranks) -> None:
    """Note what the run is of before anything is made; TrainingError where it was begun as another."""
    path = work / "begun.json"
    begun = {"of": named, "n_processes": ranks.size}
    if not path.is_file() and not (work / "start").is_dir():
        work.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(begun) + "\n", encoding="utf-8")
    elif not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != begun:
        what = "other texts, settings or another number of processes"
        raise TrainingError(f"{work} was begun with {what}: remove it, or give those again")


def _planned(path: Path, steps: Steps | None, plan: Callable[[], Steps], ranks: Ranks) -> Steps:
    """What the interrupted run had planned, or a new plan; TrainingError where other steps are asked for."""
    if not path.is_file():
        made = steps or plan()
        if ranks.is_first:
            path.write_text(json.dumps(asdict(made)) + "\n", encoding="utf-8")
    ranks.wait()
    planned = Steps(**json.loads(path.read_text(encoding="utf-8")))
    if steps not in (None, planned):
        raise TrainingError(f"{path.parent} was begun with the steps {planned}: remove it, or give those again")
    return planned


def _plan(work: Path, stages_of: Recipe, minutes: float, device: str, ranks: Ranks) -> Steps:
    """Time a few steps of each stage, and plan as many as its share of the minutes holds."""
    planned = {}
    learning = [stage for stage in stages_of(Steps(*[N_TRIAL] * len(SHARES))) if stage.schedule.n_steps]
    unit_s = 60 * minutes / sum(SHARES[stage.name] for stage in learning)
    if ranks.is_first:
        shutil.rmtree(work / "trial", ignore_errors=True)  # of a run that was interrupted while it planned
    for stage in learning:
        model = open_model(work / "start", device)
        folder = work / "trial" / stage.name
        ranks.wait()  # for those that open it later
        started = time.perf_counter()
        run_steps(model, stage.objective, stage.batches, stage.schedule, folder, seed=0, ranks=ranks)
        seconds = (time.perf_counter() - started) / N_TRIAL
        planned[stage.name] = max(1, int(unit_s * SHARES[stage.name] / seconds))
    return Steps(**planned)


def _fingerprint(corpus: Corpus, settings: Settings, answered: Answered | None) -> str:
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    digest.update(answered.fingerprint().encode() if answered else b"")
    digest.update(digest_of(corpus.texts).encode())
    return digest.hexdigest()[:16]
