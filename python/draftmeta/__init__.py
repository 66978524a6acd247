"""The per-step metadata of sparse-attention inference, filled in place, in one launch.

    fill = draftmeta.Fill(seq_lens=..., extend_lens=..., topk=2048, dsa_cache_seqlens=...)   # once
    fill(num_requests)                                                                       # per step

Fill documents the arguments, draftmeta.h (in include_dir()) every byte. draftmeta.torch has the operators for
torch.compile; it is imported only if asked for, and needs PyTorch.
"""

from pathlib import Path
from typing import Any

from ._core import Context, Error, Fill, fill, fill_many, open
from ._core import backends as _backends
from ._core import version as __version__
from ._report import Report, read_report
from ._schedule import Schedule

__all__ = [
    "Context",
    "Error",
    "Fill",
    "Report",
    "Schedule",
    "fill",
    "fill_many",
    "include_dir",
    "info",
    "library_path",
    "open",
    "read_report",
]


def info() -> dict[str, Any]:
    """What is here: {"version": ..., "backends": [...]}, the members of the latter as of "draftmeta info --json"."""
    return {"version": __version__, "backends": _backends()}


def include_dir() -> Path:
    """The folder of draftmeta.h, for a compiler's -I."""
    return Path(__file__).parent / "include"


def library_path() -> Path:
    """libdraftmeta.so, for a linker, or for dlopen from other languages."""
    return Path(__file__).parent / "libdraftmeta.so"
