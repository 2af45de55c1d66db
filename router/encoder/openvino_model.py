"""A decoder that OpenVINO runs on the CPU, called as transformers' own model is.

It is traced from that model, and a trace may have frozen what depends on the batch: it is tried before it is trusted.
"""

import sys
import warnings
from threading import Lock
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from router.errors import EncoderError

EXTRA = "pip install 'embedrouter[openvino]'"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
TRIED = ((2, 7, 3), (1, 40, 0), (3, 1, 0))  # rows, columns, and how many of these pad the first row
MOST_APART = {"float32": 1e-4, "bfloat16": 5e-2}  # of a state, relative to the mean length of states


class OpenVinoModel:
    """Runs a converted model in a precision; one batch at a time, as its kernels take all cores."""

    device = torch.device("cpu")

    def __init__(self, model: Any, dtype: str) -> None:
        openvino = _openvino()
        self.config = model.config
        self._lock = Lock()
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracers warn of every constant; the trial below tells if one matters
            converted = openvino.convert_model(_LastState(model), example_input=tuple(_batch(*TRIED[0])))
        hints = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = openvino.Core().compile_model(converted, "CPU", hints)
        self._refuse_other_states(model, MOST_APART[dtype])

    def __call__(self, *, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool) -> Any:
        inputs = [one.numpy() for one in (input_ids, attention_mask, position_ids)]
        with self._lock:
            states = torch.from_numpy(self._compiled(inputs)[0].copy())
        return SimpleNamespace(last_hidden_state=states)

    @torch.inference_mode()
    def _refuse_other_states(self, model: Any, most_apart: float) -> None:
        for shape in TRIED:
            ids, mask, positions = _batch(*shape)
            named: dict[str, Any] = {
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": positions,
                "use_cache": False,
            }
            theirs = model(**named).last_hidden_state[mask.bool()].float()  # (tokens, D)
            apart = float((self(**named).last_hidden_state[mask.bool()] - theirs).norm(dim=-1).max())
            if not apart <= most_apart * float(theirs.norm(dim=-1).mean()):
                raise EncoderError(
                    f"OpenVINO computes other states than {type(model).__name__} does: serve it by torch"
                )


class _LastState(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        output = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states


def _batch(n_rows: int, n_columns: int, n_padded: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and positions, of shape (n_rows, n_columns) each."""
    ids = torch.arange(n_rows * n_columns).reshape(n_rows, n_columns) % 100
    mask = torch.ones_like(ids)
    mask[0, n_columns - n_padded :] = 0
    return ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0)


def _openvino() -> Any:
    # it would report every conversion to its makers; without this module it does not
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EncoderError(f"OpenVINO is not installed: {EXTRA}") from error
    return openvino
