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
block table: num_states * compress_ratio of the cache's specification. A call binds its buffers the first time that it
sees them and is one C call from then on. docs/vllm.md shows the patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _bound
from ._core import Fill, key_of
from ._schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["calls", "prepare_ragged_decode", "prepare_uniform_decode", "prepare_varlen_decode"]

_calls = _bound.Calls(__name__)


def calls() -> dict[str, int]:
    """How often each function of this module was called in this process."""
    return dict(_calls.counts)


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
    what is common to all forms (_Common).
    """
    requests = num_decode_tokens // max_decode_len
    inputs = dict(seq_lens=seq_lens, block_table=block_table)
    _run(
        "prepare_uniform_decode",
        inputs,
        decode_seq_lens,
        expanded_block_table,
        decode_lens,
        requests=requests,
        tokens=num_decode_tokens,
        block_size=block_size,
        extend_len=max_decode_len,
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
    inputs = dict(seq_lens=seq_lens, query_start_loc=query_start_loc, block_table=block_table)
    _run(
        "prepare_ragged_decode",
        inputs,
        decode_seq_lens,
        expanded_block_table,
        decode_lens,
        requests=num_decodes,
        tokens=num_decode_tokens,
        block_size=block_size,
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
    inputs = dict(seq_lens=seq_lens, query_start_loc=query_start_loc, block_table=block_table)
    _run(
        "prepare_varlen_decode",
        inputs,
        output_seq_lens,
        output_block_table,
        decode_lens,
        requests=num_reqs,
        tokens=num_tokens,
        block_size=block_size,
        indices=indices,
        **more,
    )
    if per_req_lens is not None:
        import torch

        ends = query_start_loc[: num_reqs + 1]
        torch.sub(ends[1:], ends[:-1], out=per_req_lens[:num_reqs])


# ---- Common to all forms ----


def _run(
    name: str,
    inputs: dict[str, Any],
    lengths: Tensor,
    table: Tensor | None,
    decode_lens: Tensor | None,
    *,
    requests: int,
    tokens: int,
    block_size: int,
    extend_len: int | None = None,
    indices: Tensor | None = None,
    global_seq_lens: Tensor | None = None,
    schedule_metadata: Tensor | None = None,
    compress_ratio: int = 1,
    dcp_world_size: int = 1,
    dcp_rank: int = 0,
    cp_kv_cache_interleave_size: int = 1,
) -> None:
    """The last six are what every form takes beside its own arguments.

    compress_ratio: KV tokens to an entry of the indexer's cache, which lengths and schedule count. dcp_*: lengths and
    schedule count what this rank holds, localised token by token; global_seq_lens then gets the lengths of all ranks.
    schedule_metadata: int32 [SMs + 1, 2], DeepGEMM's schedule over the flattened tokens for SM90 (that of 2.8 and
    before); not for the varlen kernel of SM100, whose schedule is another. decode_lens, if given, is set to 1, which
    costs a launch more: where nothing else writes it, once is enough.
    """
    outputs = dict(
        decode_seq_lens=lengths,
        expanded_block_table=table,
        indices=indices,
        global_seq_lens=global_seq_lens,
        schedule_metadata=schedule_metadata,
    )
    scalars = (requests, tokens, block_size, extend_len, compress_ratio)
    dcp = (dcp_world_size, dcp_rank, cp_kv_cache_interleave_size)

    def bind() -> tuple[Fill, ...]:
        fills = [_bind(inputs, outputs, scalars, dcp)]
        if lengths.numel() > tokens:  # zeros behind the tokens, where nothing else is wanted
            tail = lengths.view(-1)[tokens:]
            fills.append(Fill(num_requests=0, context_lens=tail, padded_tokens=tail.numel(), borrow=True))
        return tuple(fills)

    _calls.run(name, (key_of(inputs | outputs), scalars, dcp), bind)
    if decode_lens is not None:
        decode_lens[:tokens] = 1


def _bind(
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    scalars: tuple[int, int, int, int | None, int],
    dcp: tuple[int, int, int],
) -> Fill:
    lengths, table, indices, global_seq_lens, schedule = outputs.values()
    requests, tokens, block_size, extend_len, compress_ratio = scalars
    world, rank, interleave = dcp
    source = inputs["block_table"]
    columns = min(source.shape[1], table.shape[1]) if table is not None and source is not None else 0
    return Fill(
        **inputs,
        num_requests=requests,
        extend_len=extend_len,
        context_lens=_bound.head(lengths.view(-1), tokens),
        seqlens_expanded=_bound.head(global_seq_lens, tokens),
        token_to_req=_bound.head(indices, tokens),
        page_table=None if table is None else _bound.head(table, tokens)[:, :columns],
        page_size=block_size * world,
        padded_tokens=tokens,
        full_rows=extend_len is None,
        context_divisor=compress_ratio,
        dcp_world=world,
        dcp_rank=rank,
        dcp_interleave=interleave,
        schedules=(
            schedule if schedule is None else [Schedule(schedule, "sm90", "token", divisor=compress_ratio)]
        ),
        borrow=True,
    )
