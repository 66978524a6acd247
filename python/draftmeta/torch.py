"""PyTorch operators, for torch.compile: torch.ops.draftmeta.fill and torch.ops.draftmeta.fill_draft_extend.

A compiled function cannot call a Fill, but it can call these: they say what they write, and have fake implementations.
fill takes the tensors each time, on PyTorch's current stream. In a CUDA graph their tensors must live as long as the
graph does.
"""

from __future__ import annotations

from typing import Any

import torch

from . import _core
from ._schedule import Schedule

_SCHEDULES = 2
_SCHEDULE_MEMBERS = {
    "variant": "str {}='sm90'",
    "unit": "str {}='token'",
    "slots": "SymInt? {}=None",
    "divisor": "SymInt {}=1",
}


def _schedule_arguments(index: int) -> dict[str, str]:
    prefix = f"schedule{index}_"
    table = {f"{prefix}table": f"Tensor(schedule{index}!)? {prefix}table=None"}
    return table | {prefix + name: form.format(prefix + name) for name, form in _SCHEDULE_MEMBERS.items()}


def _arguments() -> dict[str, str]:
    """The operator's arguments and their schemas, from the fields that Fill takes."""
    arguments: dict[str, str] = {}
    for name, kind in _core.fields.items():
        if kind == "schedules":
            for i in range(_SCHEDULES):
                arguments |= _schedule_arguments(i)
        else:
            form = {
                "input": "Tensor? {0}",
                "output": "Tensor({0}!)? {0}",
                "int": "SymInt? {0}",
                "flag": "bool? {0}",
            }
            arguments[name] = form[kind].format(name) + "=None"
    return arguments


_ARGUMENTS = _arguments()
_NAMES = tuple(_ARGUMENTS)


def _take_schedules(fields: dict[str, Any]) -> list[Schedule]:
    """Takes the arguments of schedules out of fields."""
    schedules = []
    for i in range(_SCHEDULES):
        members = {name: fields.pop(f"schedule{i}_{name}", None) for name in ("table", *_SCHEDULE_MEMBERS)}
        if members["table"] is not None:
            schedules.append(Schedule(**{k: v for k, v in members.items() if v is not None}))
    return schedules


def _fill(*args: Any, **kwargs: Any) -> None:
    fields = dict(zip(_NAMES, args), **kwargs)
    _core.fill(schedules=_take_schedules(fields), **fields)


def _fill_draft_extend(
    seq_lens: torch.Tensor,
    extend_lens: torch.Tensor,
    topk: int,
    seqlens_expanded: torch.Tensor | None = None,
    dsa_cache_seqlens: torch.Tensor | None = None,
) -> None:
    _core.fill(
        seq_lens=seq_lens,
        extend_lens=extend_lens,
        topk=topk,
        seqlens_expanded=seqlens_expanded,
        dsa_cache_seqlens=dsa_cache_seqlens,
    )


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What an operator gives without data: nothing, for all it does is write."""


_library = torch.library.Library("draftmeta", "DEF")


def _register(schema: str, function: Any) -> None:
    name = schema[: schema.index("(")]
    _library.define(schema)
    for key in ("CPU", "CUDA"):  # a ROCm build of PyTorch says CUDA too
        _library.impl(name, function, key)
    torch.library.register_fake(f"draftmeta::{name}", _nothing, lib=_library)


_register(f"fill({', '.join(_ARGUMENTS.values())}) -> ()", _fill)
_register(
    "fill_draft_extend(Tensor seq_lens, Tensor extend_lens, SymInt topk, "
    "Tensor(a!)? seqlens_expanded=None, Tensor(b!)? dsa_cache_seqlens=None) -> ()",
    _fill_draft_extend,
)


def fill(*, schedules: list[Schedule] | tuple[Schedule, ...] = (), **fields: Any) -> None:
    """One fill through the operator draftmeta::fill: draftmeta.fill's arguments, less stream, backend and device.

    May be called in a function that torch.compile compiles. The operator takes schedules apart, as schedule0_table,
    schedule0_variant and so on; pass its arguments by keyword, as their order follows the header's. Raises what
    draftmeta.Fill raises, when it runs.
    """
    for i, schedule in enumerate(schedules):
        for member in ("table", *_SCHEDULE_MEMBERS):
            fields[f"schedule{i}_{member}"] = getattr(schedule, member)
    torch.ops.draftmeta.fill(**fields)


def fill_draft_extend(
    seq_lens: torch.Tensor,
    extend_lens: torch.Tensor,
    topk: int,
    seqlens_expanded: torch.Tensor | None = None,
    dsa_cache_seqlens: torch.Tensor | None = None,
) -> None:
    """Lengths only, through the operator draftmeta::fill_draft_extend.

    seq_lens, extend_lens: int32 or int64 [R], KV tokens and new tokens of each request. Written, int32 [M]: for each
    token the KV tokens that it sees, and at most topk of them.
    """
    torch.ops.draftmeta.fill_draft_extend(seq_lens, extend_lens, topk, seqlens_expanded, dsa_cache_seqlens)
