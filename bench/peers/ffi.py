"""draftmeta's C interface through ctypes, for what the Python package does not show: a descriptor's address, which is
what the timing loop in C takes, and a library that is not installed."""

import ctypes
import subprocess
from pathlib import Path

import torch

INT32, INT64 = 1, 2
SCHEDULE_SMXX, SCHEDULE_SM90 = 1, 2
UNIT_TOKEN = 1
ROOT = Path(__file__).resolve().parents[2]


class Vec(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("len", ctypes.c_int64), ("type", ctypes.c_int)]


class Table(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("cols", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("type", ctypes.c_int),
    ]


class Schedule(ctypes.Structure):
    _fields_ = [("table", Vec)] + [(name, ctypes.c_int32) for name in ("variant", "unit", "slots", "divisor")]


class Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("backend", ctypes.c_char_p),
        ("device", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


class Desc(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("num_requests", ctypes.c_int32),
        ("seq_lens", Vec),
        ("extend_lens", Vec),
        ("query_start_loc", Vec),
        ("extend_len", ctypes.c_int32),
        ("seq_len_bias", ctypes.c_int32),
        ("req_to_token", Table),
        ("req_pool_indices", Vec),
        ("block_table", Table),
        ("topk", ctypes.c_int32),
        ("pool_size", ctypes.c_int32),
        ("page_size", ctypes.c_int32),
        ("padded_requests", ctypes.c_int32),
        ("padded_tokens", ctypes.c_int64),
        ("context_divisor", ctypes.c_int32),
        ("dcp_world", ctypes.c_int32),
        ("dcp_rank", ctypes.c_int32),
        ("dcp_interleave", ctypes.c_int32),
        ("seqlens_expanded", Vec),
        ("dsa_cache_seqlens", Vec),
        ("dsa_cu_seqlens_k", Vec),
        ("token_to_req", Vec),
        ("context_lens", Vec),
        ("page_table_1", Table),
        ("page_table", Table),
        ("cache_seqlens", Vec),
        ("cu_seqlens_q", Vec),
        ("cu_seqlens_k", Vec),
        ("num_tokens", Vec),
        ("schedules", Schedule * 2),
        ("report", ctypes.c_void_p),
    ]


def vec(tensor):
    kind = INT64 if tensor.dtype == torch.int64 else INT32
    return Vec(tensor.data_ptr(), tensor.numel(), kind)


def table(tensor):
    return Table(tensor.data_ptr(), tensor.shape[0], tensor.shape[1], tensor.stride(0), INT32)


def describe(schedule=None, **fields):
    """A descriptor: tensors and integers by the names of dm_fill_desc's fields; schedule: (tensor, variant, slots)."""
    desc = Desc(size=ctypes.sizeof(Desc))
    for name, value in fields.items():
        if isinstance(value, torch.Tensor):
            value = table(value) if value.dim() == 2 else vec(value)
        setattr(desc, name, value)
    if schedule:
        tensor, variant, slots = schedule
        desc.schedules[0] = Schedule(vec(tensor), variant, UNIT_TOKEN, slots, 0)
    return desc


def different(descs, least):
    """At least so many descriptors of which no two are equal: the same fills, but for a topk that is a little larger."""
    result = []
    while len(result) < least:
        for desc in descs:
            result.append(Desc.from_buffer_copy(desc))
            result[-1].topk += len(result)
    return result


class Error(Exception):
    pass


class Library:
    """libdraftmeta with one context open."""

    def __init__(self, path, backend):
        self.c = ctypes.CDLL(str(path))
        self.c.dm_last_error.restype = ctypes.c_char_p
        self.c.dm_version.restype = ctypes.c_char_p
        self.version = self.c.dm_version().decode()
        self.context = ctypes.c_void_p()
        options = Options(size=ctypes.sizeof(Options), backend=backend.encode())
        self.must(self.c.dm_open(ctypes.byref(options), ctypes.byref(self.context)))
        pointer = ctypes.c_void_p
        self.c.dm_fill.argtypes = [pointer, ctypes.POINTER(Desc), pointer]
        self.c.dm_fill_draft_extend.argtypes = [pointer, pointer, pointer, ctypes.c_int32, ctypes.c_int32]
        self.c.dm_fill_draft_extend.argtypes += [pointer, pointer, ctypes.c_int64, pointer, pointer]

    def must(self, status):
        if status:
            raise Error(f"status {status}: {self.c.dm_last_error().decode()}")

    def fill(self, desc, stream):
        self.must(self.c.dm_fill(self.context, desc, stream))

    def fill_and_wait(self, extend_lens, seq_lens, topk, expanded, small, stream):
        """The seed's signature; returns the number of tokens, for which it waits."""
        written = ctypes.c_int64()
        arrays = [t.data_ptr() for t in (extend_lens, seq_lens)]
        outputs = [t.data_ptr() for t in (expanded, small)]
        self.must(
            self.c.dm_fill_draft_extend(
                self.context,
                *arrays,
                len(seq_lens),
                topk,
                *outputs,
                len(expanded),
                ctypes.byref(written),
                stream,
            )
        )
        return written.value


class HostTimer:
    """host_time.c, built here."""

    def __init__(self, folder, compiler="cc"):
        built, source = Path(folder) / "host_time.so", Path(__file__).with_name("host_time.c")
        built.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-std=gnu11", "-O2", "-shared", "-fPIC", "-I", str(ROOT / "include")]
        subprocess.run(command + ["-o", str(built), str(source)], check=True)
        self.c = ctypes.CDLL(str(built))
        pointer = ctypes.c_void_p
        self.c.host_time_ns.argtypes = [pointer, pointer, pointer, ctypes.c_int, pointer, ctypes.c_int]
        self.c.launch_time_ns.argtypes = [
            pointer,
            pointer,
            ctypes.c_uint,
            ctypes.c_uint,
            pointer,
            pointer,
            ctypes.c_int,
        ]
        self.c.host_time_ns.restype = self.c.launch_time_ns.restype = ctypes.c_double

    def us(self, library, descs, stream, calls):
        """Microseconds a call."""
        list_of = (ctypes.POINTER(Desc) * len(descs))(*[ctypes.pointer(d) for d in descs])
        fill = ctypes.cast(library.c.dm_fill, ctypes.c_void_p)
        ns = self.c.host_time_ns(fill, library.context, list_of, len(descs), stream, calls)
        if ns < 0:
            library.must(-int(ns))
        return ns / 1e3

    def launch_us(self, driver, kernel, blocks, threads, stream, calls):
        """Microseconds a launch of a kernel that looks at none of its parameters, which are pointers."""
        values = (ctypes.c_void_p * 8)()
        params = (ctypes.c_void_p * 8)(*[ctypes.addressof(values)] * 8)
        launch = ctypes.cast(driver.cuLaunchKernel, ctypes.c_void_p)
        ns = self.c.launch_time_ns(launch, kernel, blocks, threads, params, stream, calls)
        if ns < 0:
            raise Error(f"cuLaunchKernel: error {-int(ns)}")
        return ns / 1e3
