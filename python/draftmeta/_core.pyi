from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias, final

from typing_extensions import Buffer, CapsuleType

from ._schedule import Schedule

class _DLPack(Protocol):
    def __dlpack__(self, *, max_version: tuple[int, int] | None = ...) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...

class _CudaInterface(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

class _CudaStream(Protocol):  # PyTorch
    @property
    def cuda_stream(self) -> int: ...

class _PtrStream(Protocol):  # CuPy
    @property
    def ptr(self) -> int: ...

class _HandleStream(Protocol):  # Numba, cuda.core
    @property
    def handle(self) -> Any: ...

_Array: TypeAlias = _DLPack | _CudaInterface | Buffer
_Stream: TypeAlias = int | _CudaStream | _PtrStream | _HandleStream
_Backend: TypeAlias = Literal["cuda", "hip", "cpu"]

version: str
fields: dict[str, Literal["input", "output", "int", "flag", "schedules"]]

class Error(Exception):
    status: int
    status_name: str

@final
class Context:
    @property
    def backend(self) -> _Backend: ...
    @property
    def device(self) -> int: ...
    @property
    def info(self) -> dict[str, Any]: ...

@final
class Fill:
    def __new__(
        cls,
        *,
        num_requests: SupportsIndex | None = None,
        seq_lens: _Array | None = None,
        extend_lens: _Array | None = None,
        query_start_loc: _Array | None = None,
        extend_len: SupportsIndex | None = None,
        seq_len_bias: SupportsIndex | None = None,
        req_to_token: _Array | None = None,
        req_pool_indices: _Array | None = None,
        block_table: _Array | None = None,
        topk: SupportsIndex | None = None,
        pool_size: SupportsIndex | None = None,
        page_size: SupportsIndex | None = None,
        padded_requests: SupportsIndex | None = None,
        padded_tokens: SupportsIndex | None = None,
        context_divisor: SupportsIndex | None = None,
        dcp_world: SupportsIndex | None = None,
        dcp_rank: SupportsIndex | None = None,
        dcp_interleave: SupportsIndex | None = None,
        seqlens_expanded: _Array | None = None,
        dsa_cache_seqlens: _Array | None = None,
        dsa_cu_seqlens_k: _Array | None = None,
        token_to_req: _Array | None = None,
        context_lens: _Array | None = None,
        page_table_1: _Array | None = None,
        page_table: _Array | None = None,
        cache_seqlens: _Array | None = None,
        cu_seqlens_q: _Array | None = None,
        cu_seqlens_k: _Array | None = None,
        num_tokens: _Array | None = None,
        schedules: Iterable[Schedule] | None = None,
        report: _Array | None = None,
        full_rows: bool | None = None,
        context_per_request: bool | None = None,
        backend: _Backend | None = None,
        device: SupportsIndex | None = None,
        borrow: bool = False,
    ) -> Fill: ...
    def __call__(
        self, num_requests: SupportsIndex | None = None, stream: _Stream | None = None, **fields: Any
    ) -> None: ...
    @property
    def backend(self) -> _Backend: ...
    @property
    def device(self) -> int: ...
    @property
    def num_requests(self) -> int: ...

@final
class ByLayout:
    def __new__(
        cls,
        arrays: tuple[str, ...],
        bind: Callable[[tuple[Any, ...], tuple[Any, ...]], Sequence[dict[str, Any]]],
        limit: int,
        first: Callable[[_Backend, int], None] | None = None,
    ) -> ByLayout: ...
    def run(self, arrays: tuple[Any, ...], numbers: tuple[Any, ...], /) -> None: ...
    @property
    def calls(self) -> int: ...
    @property
    def binds(self) -> int: ...
    @property
    def kept(self) -> int: ...

def open(backend: _Backend | None = None, device: int = 0) -> Context: ...
def fill(*, stream: _Stream | None = None, **fields: Any) -> None: ...
def fill_many(
    fills: Iterable[Fill],
    num_requests: SupportsIndex | Sequence[SupportsIndex] | None = None,
    stream: _Stream | None = None,
) -> None: ...
def read_report(
    report: _Array,
    stream: _Stream | None = None,
    backend: _Backend | None = None,
    device: SupportsIndex | None = None,
) -> tuple[int, int, int]: ...
def backends() -> list[dict[str, Any]]: ...
def command_info(*arguments: str) -> int: ...
