"""Weights for the small model, in place of SGLang's dummies: tokens depend on the whole context, and the draft model,
which shares the embedding, agrees with the target now and then."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

GAINS = {"q_b_proj": 4.0, "o_proj": 0.7, "down_proj": 0.5, "w2": 0.5}  # of a matrix; 1 for others
KEPT = ("cos_sin", "inv_freq")


def fill(model: Module, *_: Any, **__: Any) -> None:
    import torch

    for name, parameter in model.state_dict().items():
        if torch.is_floating_point(parameter) and not any(part in name for part in KEPT):
            _fill_one(name, parameter.data)


def _fill_one(name: str, values: Tensor) -> None:
    import torch

    if "norm" in name:
        values.fill_(0.0 if name.endswith("bias") else 1.0)
    elif name.endswith("bias") or "correction" in name:
        values.zero_()
    elif "embed" in name or "lm_head" in name:
        values.copy_(_random(name, values))
    elif "eh_proj" in name:  # the draft's input: the token, and a little of the target's hidden state
        eye = torch.eye(values.shape[0], device=values.device)
        values.copy_(torch.cat([eye, 0.2 * eye], 1))
    elif values.dim() >= 2:
        gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
        values.copy_(_random(name, values) * (gain / values.shape[-1] ** 0.5))
    else:
        values.fill_(1.0)


def _random(name: str, like: Tensor) -> Tensor:
    """The same numbers for a name in every process."""
    import torch

    generator = torch.Generator(device=like.device).manual_seed(zlib.crc32(name.encode()))
    return torch.randn(like.shape, generator=generator, device=like.device)
