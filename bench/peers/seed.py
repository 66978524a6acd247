"""The operation that draftmeta began with, in its three versions: a Python loop, a Triton kernel whose results are
copied, and the same kernel in place. Written from its description.

Per request with q new tokens and kv KV tokens, for j < q: kv - q + 1 + j, and the smaller of that and topk. Each version
writes both into the caller's buffers and returns the number of tokens written."""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # the Python loop and the CPU's versions do not need it
    triton = None

BLOCK = 128
CONFIG = {"extend_lens": [2, 3, 5], "seq_lens": [10, 15, 20]}


def python_loop(extend_lens, seq_lens, topk, expanded, clipped):
    """Takes Python lists: one small tensor per request, put together and copied."""
    device = expanded.device
    parts = [
        torch.arange(kv - q + 1, kv + 1, dtype=torch.int32, device=device)
        for q, kv in zip(extend_lens, seq_lens)
    ]
    values = torch.cat(parts)
    expanded[: len(values)].copy_(values)
    clipped[: len(values)].copy_(values.clamp(max=topk))
    return len(values)


if triton:

    @triton.jit
    def expand_kernel(
        extend_lens, seq_lens, starts, expanded, clipped, total, requests, topk, BLOCK: tl.constexpr
    ):
        """A block of tokens; each finds its request by a linear search of the running sums."""
        token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        live = token < total
        request = tl.zeros((BLOCK,), tl.int32)
        for r in range(1, requests):
            request = tl.where(token >= tl.load(starts + r), r, request)
        q = tl.load(extend_lens + request, mask=live, other=0)
        kv = tl.load(seq_lens + request, mask=live, other=0)
        start = tl.load(starts + request, mask=live, other=0)
        value = kv - q + 1 + token - start
        tl.store(expanded + token, value, mask=live)
        tl.store(clipped + token, tl.minimum(value, topk), mask=live)


def starts_of(extend_lens):
    starts = torch.zeros(len(extend_lens) + 1, dtype=torch.int32, device=extend_lens.device)
    starts[1:] = torch.cumsum(extend_lens, 0)
    return starts


def launch(extend_lens, seq_lens, starts, total, topk, expanded, clipped):
    """The kernel alone."""
    grid = (triton.cdiv(total, BLOCK),)
    expand_kernel[grid](
        extend_lens, seq_lens, starts, expanded, clipped, total, len(extend_lens), topk, BLOCK=BLOCK
    )


def triton_in_place(extend_lens, seq_lens, topk, expanded, clipped):
    """Device tensors in; the number of tokens, which sizes the grid, is read back."""
    starts = starts_of(extend_lens)
    total = int(starts[-1])
    launch(extend_lens, seq_lens, starts, total, topk, expanded, clipped)
    return total


def triton_copy(extend_lens, seq_lens, topk, expanded, clipped):
    """Into new tensors, which are then copied."""
    starts = starts_of(extend_lens)
    total = int(starts[-1])
    values = torch.empty(total, dtype=torch.int32, device=extend_lens.device)
    small = torch.empty_like(values)
    launch(extend_lens, seq_lens, starts, total, topk, values, small)
    expanded[:total].copy_(values)
    clipped[:total].copy_(small)
    return total
