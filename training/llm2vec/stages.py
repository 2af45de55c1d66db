"""A recipe's stages, one after another: each opens what the one before left, learns, is evaluated, and leaves a model.

DIR/work/<stage>/losses.csv, checkpoint.safetensors   where it stands; an interrupted stage goes on from there
DIR/work/<stage>/model/, figures.json                 it is done; it is never run again

Of several processes all learn; the first evaluates and writes, and the others wait for what it leaves.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from router.encoder.checkpoint import Pooling
from training.llm2vec.batches import Batch
from training.llm2vec.checkpoint_folders import make_bidirectional, open_model, save_model
from training.llm2vec.loop import SAVE_EVERY_S, OnStage, Schedule, run_steps
from training.llm2vec.lora import merge_lora, with_lora
from training.llm2vec.objectives import Mntp, Objective
from training.llm2vec.ranks import ALONE, Ranks
from training.llm2vec.similarity import evaluate_encoder


@dataclass(frozen=True)
class Stage:
    """One stage; n_steps 0 learns nothing, and is there for its evaluation."""

    name: str
    objective: Objective
    batches: Callable[[int], Batch]
    schedule: Schedule
    bidirectional: bool = True
    attention_dropout: float = 0.0
    lora_rank: int = 0  # none: all weights learn


@dataclass(frozen=True)
class Evaluation:
    """What each stage is measured on."""

    texts: Sequence[str]
    mntp: Mntp
    pooling: Pooling
    max_tokens: int
    pad: int


@dataclass(frozen=True)
class Run:
    """Where and how stages run."""

    work: Path
    tokenizer: Any
    evaluation: Evaluation
    device: str
    seed: int
    on_stage: OnStage
    save_every_s: float = SAVE_EVERY_S
    ranks: Ranks = ALONE

    def stages(self, start: Path, stages: Sequence[Stage]) -> Path:
        """Run those that are not done yet; the folder of the last one's model."""
        folder = start
        for stage in stages:
            done = self.work / stage.name / "model"
            if not done.is_dir():
                self._run(folder, stage, done)
            self.ranks.wait()
            folder = done
        return folder

    def figures(self, stages: Sequence[Stage]) -> dict[str, dict[str, float]]:
        """What each stage measured."""
        paths = {stage.name: self.work / stage.name / "figures.json" for stage in stages}
        return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}

    def _run(self, start: Path, stage: Stage, done: Path) -> None:
        if not (self.ranks.is_first or stage.schedule.n_steps):
            return
        model = open_model(start, self.device, attention_dropout=stage.attention_dropout)
        if stage.bidirectional:
            make_bidirectional(model)
        done.parent.mkdir(parents=True, exist_ok=True)
        losses: list[float] = []
        if stage.schedule.n_steps:
            if stage.lora_rank:
                torch.manual_seed(self.seed)
                with_lora(model, stage.lora_rank)
            losses = run_steps(
                model,
                stage.objective,
                stage.batches,
                stage.schedule,
                done.parent,
                seed=self.seed,
                on_step=self.on_stage(stage.name),
                save_every_s=self.save_every_s,
                ranks=self.ranks,
            )
            if stage.lora_rank:
                merge_lora(model)
        if not self.ranks.is_first:
            return
        on = self.evaluation
        figures = evaluate_encoder(model, self.tokenizer, on.texts, on.mntp, on.pooling, on.max_tokens, on.pad)
        part = max(1, len(losses) // 10)
        curve = {"loss_first": sum(losses[:part]) / part, "loss_last": sum(losses[-part:]) / part} if losses else {}
        content = {"n_steps": len(losses), **curve, **figures.as_json()}
        (done.parent / "figures.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_model(model, self.tokenizer, done)
        (done.parent / "checkpoint.safetensors").unlink(missing_ok=True)
