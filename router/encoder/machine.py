"""What this machine runs an encoder with: its device, the precision that it is fast in, and whose kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from router.errors import EncoderError

BACKEND_VARIABLE = "EMBEDROUTER_ENCODER_BACKEND"
BF16_FEATURES = ("amx_bf16", "avx512_bf16")

Backend = Literal["torch", "openvino"]
DTypeName = Literal["float32", "bfloat16"]


@contextmanager
def device_failures(what: str) -> Iterator[None]:
    """Turn what torch raises where memory or the device fails into an EncoderError: a service goes on without it."""
    try:
        yield
    except RuntimeError as error:
        raise EncoderError(f"{what} could not encode: {str(error).partition(chr(10))[0]}") from error


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_dtype(device: str) -> DTypeName:
    """Name bfloat16 where the device multiplies it by hardware, else float32."""
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bfloat16" if any(capabilities.get(feature) for feature in BF16_FEATURES) else "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def asked_backend() -> Backend:
    """What the environment asks for, else torch."""
    asked = os.environ.get(BACKEND_VARIABLE) or "torch"
    for backend in get_args(Backend):
        if asked == backend:
            return backend  # type: ignore[no-any-return]
    raise EncoderError(f"{BACKEND_VARIABLE} is {asked!r}; valid are {', '.join(get_args(Backend))}")
