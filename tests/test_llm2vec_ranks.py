"""Two processes learn as one that reads both their batches: the mean gradient, one writer, an end where one fails.

`python -m tests.test_llm2vec_ranks` is what each of them runs: a small line that is fitted, in double precision.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.demo.generate import generate
from router.encoder.llm2vec import Llm2VecEncoder
from tests.tiny_llama import tiny_llama
from training.llm2vec.batches import Batch
from training.llm2vec.checkpoint_folders import save_model
from training.llm2vec.loop import OnStep, Schedule, run_steps, unseen
from training.llm2vec.ranks import ALONE, Ranks, joined
from training.llm2vec.tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent
SCHEDULE = Schedule(5, 0.05, weight_decay=0.1, max_norm=1.0)
FAILS_AT = 3


class Line(nn.Module):
    """A linear map, a slope that only odd batches learn, and a weight that none does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(4, 1).double()
        self.odd = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(1, dtype=torch.float64))


def batch_of(place: int) -> Batch:
    ids = torch.randint(10, (3, 4), generator=torch.Generator().manual_seed(place))
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), (place,))


def loss_of(model: Line, batch: Batch, _generator: torch.Generator) -> Tensor:
    (place,) = batch.rows
    loss: Tensor = model.map(batch.ids.double()).square().mean()
    return loss + (model.odd * loss.detach()).square().sum() if place % 2 else loss


def mean_of_two(model: Line, batch: Batch, generator: torch.Generator) -> Tensor:
    (step,) = batch.rows
    return torch.stack([loss_of(model, batch_of(2 * step + rank), generator) for rank in range(2)]).mean()


def weights(model: Line) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in model.named_parameters()}


class StoppedError(Exception):
    pass


def fit_in_ranks(folder: Path, how: str) -> None:
    """Fit at once, then again but stopped and resumed ("twice"), or lose the second process on the way ("fails")."""
    drawn: list[float] = []

    def objective(model: Line, batch: Batch, generator: torch.Generator) -> Tensor:
        drawn.extend([float(torch.rand(1, generator=generator)), float(torch.rand(1)) + 1])
        return loss_of(model, batch, generator)

    def stop(done: int, _n_steps: int, _loss: float) -> None:
        if done == FAILS_AT:
            raise StoppedError("stopped here")

    with joined("cpu") as ranks:

        def fit(name: str, on_step: OnStep = unseen) -> dict[str, Any]:
            model = Line()
            at = folder / name
            losses = run_steps(
                model, objective, batch_of, SCHEDULE, at, seed=0, on_step=on_step, save_every_s=0, ranks=ranks
            )
            return {"weights": weights(model), "losses": losses}

        if how == "fails":
            fit("fails", unseen if ranks.is_first else stop)
        result = {**fit("whole"), "drawn": drawn[:]}
        with suppress(StoppedError):
            fit("parts", stop)
        result["resumed"] = fit("parts")
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(result), encoding="utf-8")


def in_two_processes(*command: str) -> subprocess.CompletedProcess[str]:
    """Start `python -m COMMAND` twice, as torchrun does."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launch, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_two_processes_learn_as_one_on_the_mean_of_their_losses_and_resume_so(tmp_path: Path) -> None:
    model = Line()
    alone = run_steps(
        model,
        mean_of_two,
        lambda step: Batch(torch.zeros(0), torch.zeros(0), (step,)),
        SCHEDULE,
        tmp_path / "alone",
        seed=0,
    )
    ran = in_two_processes("tests.test_llm2vec_ranks", str(tmp_path), "twice")
    assert ran.returncode == 0, ran.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text("utf-8")) for rank in range(2))
    assert first["weights"] == second["weights"]
    assert first["losses"] == second["losses"] == pytest.approx(alone, abs=1e-6)
    for name, value in weights(model).items():
        assert first["weights"][name] == pytest.approx(value, abs=1e-6)
    assert first["weights"]["unused"] == [1.0]  # no gradient anywhere: not even its weight decays
    assert len({*first["drawn"], *second["drawn"]}) == 2 * 2 * SCHEDULE.n_steps  # none is drawn twice
    for whole in (first, second):
        assert whole["resumed"] == {name: whole[name] for name in ("weights", "losses")}


def test_where_one_process_fails_the_other_ends_too(tmp_path: Path) -> None:
    ran = in_two_processes("tests.test_llm2vec_ranks", str(tmp_path), "fails")
    assert ran.returncode != 0
    assert "StoppedError: stopped here" in ran.stderr
    assert not list(tmp_path.glob("rank*.json"))


def test_two_processes_convert_into_one_encoder(tmp_path: Path) -> None:
    texts = [question.prompt for question in generate(100, 0)]
    save_model(tiny_llama(), train_tokenizer(texts, 400), tmp_path / "base")
    (tmp_path / "notes.txt").write_text("\n\n".join(texts), encoding="utf-8")
    given = ["--text", str(tmp_path / "notes.txt"), "--max-tokens", "64", "--full", "--device", "cpu", "--json"]
    steps = ["--mntp-steps", "2", "--simcse-steps", "2"]
    out = tmp_path / "out"
    ran = in_two_processes(
        "embedrouter", "llm2vec", "convert", str(tmp_path / "base"), "--out", str(out), *given, *steps
    )
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)  # one process printed
    assert figures == json.loads((out / "training.json").read_text("utf-8"))
    assert [figures["stages"][name]["n_steps"] for name in ("bidirectional", "mntp", "simcse")] == [0, 2, 2]
    vectors = Llm2VecEncoder.load(out).encode(texts[:4])
    assert vectors.shape == (4, 32)
    assert np.isfinite(vectors).all()


def test_a_process_alone_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cuda") as ranks:
        assert ranks == ALONE
        assert not torch.distributed.is_initialized()
    assert ranks.device("cuda") == "cuda"
    assert Ranks(rank=5, size=8, local=1).device("cuda") == "cuda:1"
    assert Ranks(rank=5, size=8, local=1).device("cpu") == "cpu"


if __name__ == "__main__":
    fit_in_ranks(Path(sys.argv[1]), sys.argv[2])
