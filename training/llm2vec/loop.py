"""The loop that every step of the recipe runs: one optimizer, its checkpoints, its loss curve.

Each step's randomness follows from the seed and the step's number, so that a run that was interrupted and resumed ends
where an uninterrupted one does. What is learned is the objective's matter. Several processes that learn together read
as many batches a step, one each, and the first of them writes.
"""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.errors import TrainingError
from training.llm2vec.batches import Batch
from training.llm2vec.objectives import Objective
from training.llm2vec.ranks import ALONE, Ranks

SAVE_EVERY_S = 300.0
SMALLEST_SHARE = 0.02  # of the learning rate, at the end

OnStep = Callable[[int, int, float], None]  # steps done, steps in all, the last loss
OnStage = Callable[[str], OnStep]


def unseen(_done: int, _n_steps: int, _loss: float) -> None:
    """Show no progress."""


def no_bars(_stage: str) -> OnStep:
    """Show no stage's progress."""
    return unseen


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a step learns: linear warm-up, then linear decay."""

    n_steps: int
    learning_rate: float
    n_warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_norm: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = (step + 1) / (self.n_warmup + 1)
        falling = (self.n_steps - step) / max(self.n_steps - self.n_warmup, 1)
        return self.learning_rate * max(min(rising, falling, 1.0), SMALLEST_SHARE)


def run_steps(
    model: Any,
    objective: Objective,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    folder: Path,
    *,
    seed: int,
    on_step: OnStep = unseen,
    save_every_s: float = SAVE_EVERY_S,
    ranks: Ranks = ALONE,
) -> list[float]:
    """Learn in place from where the folder's checkpoint stands; every step's loss, also written to losses.csv.

    A loss is the mean of the ranks'; TrainingError where they find different checkpoints.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        named.values(), lr=schedule.learning_rate, betas=schedule.betas, weight_decay=schedule.weight_decay
    )
    folder.mkdir(parents=True, exist_ok=True)
    losses = _resume(folder, named, optimizer)
    device = next(iter(named.values())).device
    stands = torch.tensor(len(losses), dtype=torch.float64, device=device)
    if ranks.mean(stands) != stands:
        raise TrainingError(f"not all processes see the same checkpoint in {folder}: they must share that folder")
    model.train()
    saved_at = time.monotonic()
    try:
        for step in range(len(losses), schedule.n_steps):
            place = step * ranks.size + ranks.rank  # of the batch, counted over all ranks
            generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
            torch.manual_seed(seed * 1_000_003 + place)  # dropout draws from the global one
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = objective(model, batches(place).to(device), generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            ranks.average(named.values())
            torch.nn.utils.clip_grad_norm_(named.values(), schedule.max_norm)
            optimizer.step()
            losses.append(float(ranks.mean(loss.detach())))
            on_step(len(losses), schedule.n_steps, losses[-1])
            if ranks.is_first and time.monotonic() - saved_at > save_every_s:
                _save(folder, named, optimizer, losses)
                saved_at = time.monotonic()
    finally:
        model.eval()
    if ranks.is_first:
        _save(folder, named, optimizer, losses)
    return losses


def _save(folder: Path, named: dict[str, Tensor], optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    """Write the checkpoint and the loss curve; a crash leaves the earlier or the later one, whole."""
    tensors = {}
    for name, parameter in named.items():
        state = optimizer.state.get(parameter, {})
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                tensors[f"{moment}.{name}"] = state[moment].contiguous()
    unfinished = folder / "checkpoint.tmp"
    save_file(tensors, unfinished, metadata={"losses": json.dumps(losses)})
    unfinished.replace(folder / "checkpoint.safetensors")
    with (folder / "losses.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["step", "loss"])
        table.writerows((step + 1, f"{loss:.5f}") for step, loss in enumerate(losses))


def _resume(folder: Path, named: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> list[float]:
    """Put the weights and the optimizer where the checkpoint has them; the losses so far, none without one."""
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return []
    tensors = load_file(path)
    losses: list[float] = json.loads(_metadata(path)["losses"])
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[f"weight.{name}"])
            if f"exp_avg.{name}" in tensors:
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(len(losses))),
                    "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
                }
    return losses


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata
