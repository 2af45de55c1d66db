"""How a prompt's hidden states become one vector; the trainer learns through the very same."""

import torch
from torch import Tensor

from router.encoder.checkpoint import Pooling


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Make one vector of each row's states (B, T, D): their mean, one weighted by position, or the last; (B, D).

    mask: bool (B, T), the tokens that count; a row without any gives zeros, unless the last is asked for.
    """
    if pooling == "last":
        last = mask.long().cumsum(dim=1).argmax(dim=1)
        return states[torch.arange(len(states), device=states.device), last]
    weight = mask.float() if pooling == "mean" else mask.cumsum(dim=1) * mask.float()  # (B, T)
    summed = torch.where(mask[..., None], states * weight[..., None], 0.0).sum(dim=1)  # (B, D)
    return summed / weight.sum(dim=1, keepdim=True).clamp(min=1)
