"""The decode part of vLLM 0.33's sparse-indexer metadata, one launch of draftmeta for each step.

vLLM makes it in DeepseekV32IndexerMetadataBuilder.build (v1/attention/backends/mla/indexer.py), from a Triton kernel
or about fifteen PyTorch calls, and then again for context parallelism, compression and the schedule:

    prepare_uniform_decode    instead of _PREPARE_UNIFORM_DECODE_KERNEL: as many tokens for each request
    prepare_ragged_decode     instead of the other branch of _prepare_decode_tensors
    prepare_varlen_decode     instead of _indexer_decode_metadata_kernel: padding tokens get indices of their own

They write the same bytes as vLLM, with these exceptions, none of which a consumer may read:

- A row of the expanded block table is written up to the page of the request's last KV token. Behind it the uniform form
  leaves the row as it is, and the others write zeros; vLLM copies what the source has there.
- Padding rows are all zeros in the ragged form too, where vLLM zeroes their first column.
- Lengths below 0 are 0 in all forms; in vLLM only in the uniform one.
- The tokens of requests beyond num_decode_tokens are dropped.

Tensors are int32, on one device, with contiguous vectors and rows. block_size is the number of tokens of a page of the
block table: num_states * compress_ratio of the cache's specification. A call binds a layout (shapes, strides, types,
numbers) the first time that it sees it and is one C call from then on, wherever the tensors are. docs/vllm.md shows the
patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _bound
from ._bound import Part, head
from ._core import ByLayout
from ._schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["calls", "prepare_ragged_decode", "prepare_uniform_decode", "prepare_varlen_decode"]

_calls = _bound.Calls(__name__)


def calls() -> dict[str, int]:
    """How often each function of this module was called in this process."""
    return _calls.counts()


def prepare_uniform_decode(
    seq_lens: Tensor,
    decode_seq_lens: Tensor,
    block_table: Tensor | None,
    expanded_block_table: Tensor | None,
    decode_lens: Tensor | None,
    num_decode_tokens: int,
    max_decode_len: int,
    *,
    block_size: int = 1,
    **more: Any,
) -> None:
    """max_decode_len tokens for each of the requests; also the lengths [requests, max_decode_len] of the native form.

    decode_seq_lens is written to its end, zeros behind num_decode_tokens; give a view of what is to be written. more:
    what is common to all forms (_run).
    """
    _run(
        _uniform,
        (seq_lens, None, block_table, decode_seq_lens, expanded_block_table, None),
        (num_decode_tokens // max_decode_len, num_decode_tokens, block_size, max_decode_len),
        decode_lens,
        **more,
    )


def prepare_ragged_decode(
    seq_lens: Tensor,
    query_start_loc: Tensor,
    block_table: Tensor,
    decode_seq_lens: Tensor,
    expanded_block_table: Tensor,
    decode_lens: Tensor | None,
    num_decodes: int,
    num_decode_tokens: int,
    *,
    block_size: int,
    **more: Any,
) -> None:
    """Query lengths from query_start_loc [num_decodes + 1] on the device; lengths 0 behind the last token."""
    _run(
        _ragged,
        (seq_lens, query_start_loc, block_table, decode_seq_lens, expanded_block_table, None),
        (num_decodes, num_decode_tokens, block_size, None),
        decode_lens,
        **more,
    )


def prepare_varlen_decode(
    query_start_loc: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    output_seq_lens: Tensor,
    output_block_table: Tensor,
    decode_lens: Tensor | None,
    indices: Tensor,
    per_req_lens: Tensor | None,
    num_reqs: int,
    num_tokens: int,
    *,
    block_size: int,
    **more: Any,
) -> None:
    """As the ragged form, and indices: the token's request, or num_reqs, num_reqs + 1, ... for padding tokens.

    per_req_lens, if given, costs a launch more: the differences of query_start_loc.
    """
    _run(
        _varlen,
        (seq_lens, query_start_loc, block_table, output_seq_lens, output_block_table, indices),
        (num_reqs, num_tokens, block_size, None),
        decode_lens,
        **more,
    )
    if per_req_lens is not None:
        import torch

        ends = query_start_loc[: num_reqs + 1]
        torch.sub(ends[1:], ends[:-1], out=per_req_lens[:num_reqs])


# ---- Common to all forms ----


def _run(
    function: ByLayout,
    arrays: tuple[Tensor | None, ...],
    numbers: tuple[int | None, ...],
    decode_lens: Tensor | None,
    *,
    global_seq_lens: Tensor | None = None,
    schedule_metadata: Tensor | None = None,
    compress_ratio: int = 1,
    dcp_world_size: int = 1,
    dcp_rank: int = 0,
    cp_kv_cache_interleave_size: int = 1,
) -> None:
    """Those by name are what every form takes beside its own arguments.

    compress_ratio: KV tokens to an entry of the indexer's cache, which lengths and schedule count. dcp_*: lengths and
    schedule count what this rank holds, localised token by token; global_seq_lens then gets the lengths of all ranks.
    schedule_metadata: int32 [SMs + 1, 2], DeepGEMM's schedule over the flattened tokens for SM90 (that of 2.8 and
    before); not for the varlen kernel of SM100, whose schedule is another. decode_lens, if given, is set to 1, which
    costs a launch more: where nothing else writes it, once is enough.
    """
    function.run(
        arrays + (global_seq_lens, schedule_metadata),
        numbers + (compress_ratio, dcp_world_size, dcp_rank, cp_kv_cache_interleave_size),
    )
    if decode_lens is not None:
        decode_lens[: numbers[1]] = 1


# ---- Binding ----

# The arrays of all forms, by the fields of a fill that they are. Functions pass them in this order.
_ARRAYS = dict(
    seq_lens="seq_lens",
    query_start_loc="query_start_loc",
    block_table="block_table",
    decode_seq_lens="context_lens",
    expanded_block_table="page_table",
    indices="token_to_req",
    global_seq_lens="seqlens_expanded",
    schedule_metadata="schedule",
)


def _bind(arrays: tuple[Any, ...], numbers: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The fill, and one of zeros behind the tokens, where nothing else is wanted."""
    tokens = numbers[1]
    parts = _bound.whole(arrays, tuple(_ARRAYS.values()))
    lengths = parts["context_lens"]
    behind = arrays[lengths.number].numel() - tokens if lengths else 0
    fills = [_fields(arrays, parts, *numbers)]
    if lengths and behind > 0:
        tail = Part(lengths.number, behind, skip=tokens)
        fills.append(dict(num_requests=0, context_lens=tail, padded_tokens=behind))
    return fills


def _fields(
    arrays: tuple[Any, ...],
    parts: dict[str, Part | None],
    requests: int,
    tokens: int,
    block_size: int,
    extend_len: int | None,
    compress_ratio: int,
    world: int,
    rank: int,
    interleave: int,
) -> dict[str, Any]:
    source, table = parts["block_table"], parts["page_table"]
    columns = min(arrays[part.number].shape[1] for part in (source, table)) if source and table else 0
    for output in ("context_lens", "seqlens_expanded", "token_to_req"):
        parts[output] = head(parts[output], tokens)
    parts["page_table"] = head(table, tokens, columns)
    schedule: Any = parts.pop("schedule")
    schedules = None if schedule is None else [Schedule(schedule, "sm90", "token", divisor=compress_ratio)]
    return dict(
        parts,
        num_requests=requests,
        extend_len=extend_len,
        page_size=block_size * world,
        padded_tokens=tokens,
        full_rows=extend_len is None,
        context_divisor=compress_ratio,
        dcp_world=world,
        dcp_rank=rank,
        dcp_interleave=interleave,
        schedules=schedules,
    )


_uniform = _calls.function("prepare_uniform_decode", tuple(_ARRAYS), _bind)
_ragged = _calls.function("prepare_ragged_decode", tuple(_ARRAYS), _bind)
_varlen = _calls.function("prepare_varlen_decode", tuple(_ARRAYS), _bind)
