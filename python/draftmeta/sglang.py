"""Drop-ins for SGLang 0.5.23's DSA metadata kernels: the same names and arguments, one launch of draftmeta each.

    from draftmeta.sglang import fused_dsa_decode_metadata   # instead of sglang.kernels.ops.attention.dsa.metadata

They write the same bytes, with these exceptions, none of which a consumer of the originals may read:

- A page-table row is written up to the request's last KV token; the originals go on to a multiple of 128 columns.
- fused_dsa_draft_extend_metadata, where the extend lengths sum to less than total_len, gives the tokens behind the last
  one length 0; the originals give them request 0's length.
- With static_extend_len every request has max_extend_len tokens and extend_seq_lens is not read, so it may be None; the
  originals take its first element.
- Lengths below 0 count as 0, and pool indices out of range have no live columns; the originals read out of bounds.
- The columns of req_to_token bound those that are read; the originals trust max_len.

Tensors are of one device, a GPU's or the host's; vectors are contiguous, and so are the rows of tables. seq_lens,
extend_seq_lens and req_pool_indices are int32 or int64, the rest is int32. A call binds a layout (shapes, strides, types,
numbers) the first time that it sees it and is one C call from then on, wherever the tensors are. docs/sglang.md shows the
patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from . import _bound
from ._bound import Part, head
from ._schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "calls",
    "dsa_step_metadata",
    "fused_dsa_decode_metadata",
    "fused_dsa_decode_metadata_kpool",
    "fused_dsa_draft_extend_metadata",
    "fused_dsa_draft_extend_metadata_kpool",
    "fused_dsa_target_verify_metadata",
    "fused_dsa_target_verify_metadata_kpool",
    "seqlens_expand_triton",
]

_calls = _bound.Calls(__name__)


def calls() -> dict[str, int]:
    """How often each function of this module was called in this process."""
    return _calls.counts()


def fused_dsa_decode_metadata(
    seq_lens: Tensor,
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    cache_seqlens: Tensor,
    cu_seqlens_k: Tensor,
    page_table_1: Tensor | None,
    dsa_cache_seqlens: Tensor,
    dsa_cu_seqlens_k: Tensor,
    real_page_table: Tensor | None,
    bs: int,
    max_len: int,
    dsa_index_topk: int,
    physical_page_size: int | None = None,
    index_kpool: int = 1,
    *,
    real_page_size: int | None = None,
) -> None:
    """One token for each of bs requests. real_page_size is physical_page_size's older name."""
    page = real_page_size if physical_page_size is None else physical_page_size
    _decode.run(
        (seq_lens, None, req_pool_indices, req_to_token, cache_seqlens, cu_seqlens_k, page_table_1)
        + (None, dsa_cache_seqlens, dsa_cu_seqlens_k, real_page_table, None, None),
        (bs, bs, max_len, dsa_index_topk, page, index_kpool, 1, 0, False),
    )


def fused_dsa_target_verify_metadata(
    seq_lens: Tensor,
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    cache_seqlens: Tensor,
    cu_seqlens_k: Tensor,
    page_table_1: Tensor | None,
    seqlens_expanded: Tensor,
    dsa_cache_seqlens: Tensor,
    dsa_cu_seqlens_k: Tensor,
    real_page_table: Tensor | None,
    bs: int,
    max_seqlen_k: int,
    dsa_index_topk: int,
    physical_page_size: int | None = None,
    next_n: int = 0,
    paged_mqa_ctx_lens_2d: Tensor | None = None,
    index_kpool: int = 1,
    *,
    real_page_size: int | None = None,
) -> None:
    """next_n tokens for each of bs requests, which seq_lens does not count yet."""
    page = real_page_size if physical_page_size is None else physical_page_size
    _verify.run(
        (seq_lens, None, req_pool_indices, req_to_token, cache_seqlens, cu_seqlens_k, page_table_1)
        + (
            seqlens_expanded,
            dsa_cache_seqlens,
            dsa_cu_seqlens_k,
            real_page_table,
            paged_mqa_ctx_lens_2d,
            None,
        ),
        (bs, bs * next_n, max_seqlen_k, dsa_index_topk, page, index_kpool, next_n, next_n, True),
    )


def fused_dsa_draft_extend_metadata(
    seq_lens: Tensor,
    extend_seq_lens: Tensor | None,
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    cache_seqlens: Tensor,
    cu_seqlens_k: Tensor,
    page_table_1: Tensor | None,
    seqlens_expanded: Tensor,
    dsa_cache_seqlens: Tensor,
    dsa_cu_seqlens_k: Tensor,
    real_page_table: Tensor | None,
    bs: int,
    total_len: int,
    max_seqlen_k: int,
    dsa_index_topk: int,
    physical_page_size: int | None = None,
    max_extend_len: int = 0,
    max_total_len: int = 0,
    static_extend_len: bool = False,
    index_kpool: int = 1,
    *,
    real_page_size: int | None = None,
) -> None:
    """The last extend_seq_lens tokens of bs requests, total_len in all. max_total_len is not needed."""
    page = real_page_size if physical_page_size is None else physical_page_size
    lens, extend_len = (None, max_extend_len) if static_extend_len else (extend_seq_lens, None)
    _extend.run(
        (seq_lens, lens, req_pool_indices, req_to_token, cache_seqlens, cu_seqlens_k, page_table_1)
        + (seqlens_expanded, dsa_cache_seqlens, dsa_cu_seqlens_k, real_page_table, None, None),
        (bs, total_len, max_seqlen_k, dsa_index_topk, page, index_kpool, extend_len, 0, False),
    )


fused_dsa_decode_metadata_kpool = fused_dsa_decode_metadata
fused_dsa_target_verify_metadata_kpool = fused_dsa_target_verify_metadata
fused_dsa_draft_extend_metadata_kpool = fused_dsa_draft_extend_metadata


def dsa_step_metadata(
    mode: Literal["decode", "target_verify", "draft_extend"],
    *,
    seq_lens: Tensor,
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    cache_seqlens: Tensor,
    cu_seqlens_k: Tensor,
    page_table_1: Tensor | None,
    dsa_cache_seqlens: Tensor,
    dsa_cu_seqlens_k: Tensor,
    real_page_table: Tensor | None,
    bs: int,
    max_len: int,
    dsa_index_topk: int,
    physical_page_size: int,
    next_n: int = 1,
    seqlens_expanded: Tensor | None = None,
    paged_mqa_ctx_lens_2d: Tensor | None = None,
    paged_mqa_schedule_metadata: Tensor | None = None,
    schedule_variant: Literal["sm90", "sm100"] = "sm90",
    index_kpool: int = 1,
) -> None:
    """A whole step in one launch: what the function of that mode writes, the context lengths and the schedule.

    mode: "draft_extend" is its static form, next_n tokens for each request. paged_mqa_ctx_lens_2d and
    paged_mqa_schedule_metadata are what SGLang's _build_paged_mqa_schedule_2d_ctx_lens and deep_gemm's
    get_paged_mqa_logits_metadata give: on SM100 a verify step of next_n >= 2 has the context lengths [bs, next_n],
    each a request's whole length, and a schedule over requests; all others have [tokens, 1], and a schedule over
    tokens. Context lengths may be a view of the lengths that they repeat. The schedule is that of sgl-deep-gemm
    0.2.3.post2, int32 [SMs + 1, 2].
    """
    _whole_step.run(
        (seq_lens, None, req_pool_indices, req_to_token, cache_seqlens, cu_seqlens_k, page_table_1)
        + (seqlens_expanded, dsa_cache_seqlens, dsa_cu_seqlens_k, real_page_table)
        + (paged_mqa_ctx_lens_2d, paged_mqa_schedule_metadata),
        (mode, bs, next_n, max_len, dsa_index_topk, physical_page_size, index_kpool, schedule_variant),
    )


def seqlens_expand_triton(
    extend_seq_lens: Tensor, seq_lens: Tensor, total_len: int, max_q_len: int
) -> Tensor:
    """The KV tokens that each of the requests' last extend_seq_lens tokens sees: int32 [total_len], a new tensor.

    What the lengths leave of it is 0; the original leaves it as allocated. max_q_len is not needed.
    """
    import torch

    out = torch.empty(total_len, dtype=torch.int32, device=seq_lens.device)
    _expand.run((extend_seq_lens, seq_lens, out), (total_len,))
    return out


# ---- Binding ----

# The arrays of a step, by the fields of a fill that they are. Functions pass them in this order.
_ARRAYS = dict(
    seq_lens="seq_lens",
    extend_seq_lens="extend_lens",
    req_pool_indices="req_pool_indices",
    req_to_token="req_to_token",
    cache_seqlens="cache_seqlens",
    cu_seqlens_k="cu_seqlens_k",
    page_table_1="page_table_1",
    seqlens_expanded="seqlens_expanded",
    dsa_cache_seqlens="dsa_cache_seqlens",
    dsa_cu_seqlens_k="dsa_cu_seqlens_k",
    real_page_table="page_table",
    paged_mqa_ctx_lens_2d="context_lens",
    paged_mqa_schedule_metadata="schedule",
)

_Arrays = tuple["Tensor | None", ...]
_Fields = dict[str, Any]


def _parts(arrays: _Arrays) -> dict[str, Part | None]:
    """All of the arrays, by field."""
    return _bound.whole(arrays, tuple(_ARRAYS.values()))


def _bind(arrays: _Arrays, numbers: tuple[Any, ...]) -> list[_Fields]:
    """numbers: the arguments of _fields."""
    return [_fields(_parts(arrays), *numbers)]


def _bind_step(arrays: _Arrays, numbers: tuple[Any, ...]) -> list[_Fields]:
    """numbers: the last tuple of dsa_step_metadata."""
    mode, bs, next_n, max_len, topk, page, kpool, variant = numbers
    if mode not in ("decode", "target_verify", "draft_extend"):
        raise ValueError(f"mode is {mode!r}: it takes 'decode', 'target_verify' or 'draft_extend'")
    n = 1 if mode == "decode" else next_n
    parts = _parts(arrays)
    context, lengths = (
        parts["context_lens"],
        parts["cache_seqlens" if mode == "decode" else "seqlens_expanded"],
    )
    if context and lengths and _begin_together(arrays[context.number], arrays[lengths.number]):
        parts["context_lens"] = None
    bias = n if mode == "target_verify" else 0
    per_request = mode == "target_verify" and variant == "sm100" and n >= 2
    return [_fields(parts, bs, bs * n, max_len, topk, page, kpool, n, bias, per_request, variant)]


def _begin_together(a: Any, b: Any) -> bool:
    return bool(a.data_ptr() == b.data_ptr())


def _fields(
    parts: dict[str, Part | None],
    bs: int,
    tokens: int,
    max_len: int,
    topk: int,
    page: int | None,
    kpool: int,
    extend_len: int | None,
    bias: int,
    per_request: bool,
    variant: Literal["sm90", "sm100"] = "sm90",
) -> _Fields:
    """A fill of the first tokens rows and max_len columns of the arrays."""
    if page is None or page < 1:
        raise ValueError(f"physical_page_size is {page}: it must be at least 1")
    if page == 1:  # the table of slots is the table of pages, too
        parts["page_table"] = None
    if bs and parts["page_table_1" if page == 1 else "page_table"] is None:
        raise ValueError(
            f"{'page_table_1' if page == 1 else 'real_page_table'} must be given for pages of {page}"
        )
    if bs and extend_len is not None and extend_len < 1:
        raise ValueError(f"each request has {extend_len} tokens: it must have at least 1")
    for table, columns in (("page_table_1", max_len), ("page_table", -(-max_len // page))):
        parts[table] = head(parts[table], tokens, columns)
    for vector in ("seqlens_expanded", "dsa_cache_seqlens"):
        parts[vector] = head(parts[vector], tokens)
    parts["dsa_cu_seqlens_k"] = head(parts["dsa_cu_seqlens_k"], tokens + 1)
    schedule: Any = parts.pop("schedule")
    unit: Literal["request", "token"] = "request" if per_request else "token"
    return dict(
        parts,
        num_requests=bs,
        extend_len=extend_len,
        seq_len_bias=bias,
        topk=topk,
        pool_size=kpool,
        page_size=page,
        padded_tokens=tokens if extend_len is None else None,
        context_per_request=per_request and bool(extend_len),
        schedules=None if schedule is None else [Schedule(schedule, variant, unit)],
    )


def _bind_expand(arrays: _Arrays, numbers: tuple[Any, ...]) -> list[_Fields]:
    parts = _bound.whole(arrays, ("extend_lens", "seq_lens", "seqlens_expanded"))
    return [dict(parts, padded_tokens=numbers[0])]


_decode = _calls.function("fused_dsa_decode_metadata", tuple(_ARRAYS), _bind)
_verify = _calls.function("fused_dsa_target_verify_metadata", tuple(_ARRAYS), _bind)
_extend = _calls.function("fused_dsa_draft_extend_metadata", tuple(_ARRAYS), _bind)
_whole_step = _calls.function("dsa_step_metadata", tuple(_ARRAYS), _bind_step)
_expand = _calls.function("seqlens_expand_triton", ("extend_seq_lens", "seq_lens", "out"), _bind_expand)
