"""Compares what draftmeta wrote into poisoned copies with what SGLang wrote."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

POISON = -7
TABLES = ("page_table_1", "real_page_table")
VECTORS = ("cache_seqlens", "cu_seqlens_k", "seqlens_expanded", "dsa_cache_seqlens", "dsa_cu_seqlens_k")
WHOLE = ("paged_mqa_ctx_lens_2d", "paged_mqa_schedule_metadata")
OUTPUTS = VECTORS + TABLES + WHOLE


def outputs_of(arguments: dict[str, Any]) -> dict[str, Tensor]:
    return {name: arguments[name] for name in OUTPUTS if arguments.get(name) is not None}


def poisoned(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    import torch

    return {name: torch.full_like(tensor, POISON) for name, tensor in outputs.items()}


class Comparison:
    """Tensors that were compared, and those that differ, by place and name."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.checked: Counter[str] = Counter()
        self.differing: Counter[str] = Counter()
        self.examples: list[str] = []

    def step(
        self,
        where: str,
        theirs: dict[str, Tensor],
        ours: dict[str, Tensor],
        requests: int,
        per_request: int,
        page: int,
    ) -> None:
        """Everything that a step writes; of a table's rows only the live cells, and no other may be written."""
        rows = requests * per_request
        lengths = dict.fromkeys(("seqlens_expanded", "dsa_cache_seqlens"), rows)
        lengths |= {"cache_seqlens": requests, "cu_seqlens_k": requests + 1, "dsa_cu_seqlens_k": rows + 1}
        kv = theirs["cache_seqlens"][:requests]
        for name in theirs:
            if name in TABLES:
                live = live_cells(
                    kv, per_request, theirs[name].shape[1], 1 if name == "page_table_1" else page
                )
                self.table(f"{where}: {name}", theirs[name][:rows], ours[name][:rows], live)
            else:
                length = lengths.get(name)
                self.same(f"{where}: {name}", theirs[name][:length], ours[name][:length])

    def same(self, what: str, theirs: Tensor, ours: Tensor) -> None:
        self._note(what, theirs, ours, theirs != ours)

    def table(self, what: str, theirs: Tensor, ours: Tensor, live: Tensor) -> None:
        self._note(what, theirs, ours, (theirs != ours) & live | (ours != POISON) & ~live)

    def _note(self, what: str, theirs: Tensor, ours: Tensor, wrong: Tensor) -> None:
        self.checked[what] += 1
        if bool(wrong.any()):
            self.differing[what] += 1
            if len(self.examples) < 20:
                at = tuple(wrong.nonzero()[0].tolist())
                self.examples.append(f"{what}{list(at)}: {int(theirs[at])}, draftmeta's is {int(ours[at])}")

    def take(self) -> dict[str, Any]:
        """The result so far; begins anew."""
        result = {
            "checked": dict(self.checked),
            "differing": dict(self.differing),
            "examples": self.examples,
        }
        self.clear()
        return result


def live_cells(kv: Tensor, per_request: int, columns: int, page: int) -> Tensor:
    """Which cells of a page table, per_request rows for each request, stand for KV tokens."""
    import torch

    used = ((kv.to(torch.int64) + page - 1) // page).repeat_interleave(per_request)
    return torch.arange(columns, device=kv.device)[None, :] < used[:, None]
