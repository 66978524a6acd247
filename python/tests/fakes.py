"""Exporters of arrays as other packages have them, around memory of NumPy's."""

import ctypes
import functools

import draftmeta
import pytest

np = pytest.importorskip("numpy")

CPU, CUDA, CUDA_HOST, METAL, ROCM = 1, 2, 3, 8, 10


class Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("backend", ctypes.c_char_p),
        ("device", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


class TestDriver:
    """Memory of the test driver's, which lies on the host."""

    library = ctypes.CDLL(draftmeta._core.__file__)  # brings the libdraftmeta that the package uses

    def __init__(self, backend):
        self.ctx = ctypes.c_void_p()
        options = Options(ctypes.sizeof(Options), backend.encode())
        assert self.library.dm_open(ctypes.byref(options), ctypes.byref(self.ctx)) == 0

    def copy(self, array):
        """array in the device's memory, where it stays."""
        address = ctypes.c_void_p()
        size = max(array.nbytes, 8)
        assert self.library.dm_malloc(self.ctx, ctypes.c_size_t(size), ctypes.byref(address)) == 0
        memory = np.frombuffer((ctypes.c_char * size).from_address(address.value), array.dtype, array.size)
        memory = memory.reshape(array.shape)
        memory[...] = array
        return memory


@functools.cache
def test_driver(backend):
    return TestDriver(backend)


class CudaArray:
    """__cuda_array_interface__, version 3. Members of the interface may be replaced."""

    def __init__(self, memory, **members):
        self.memory = memory
        self.__dict__["interface"] = {
            "shape": memory.shape,
            "typestr": memory.dtype.str,
            "data": (memory.ctypes.data, False),
            "strides": None if memory.flags.c_contiguous else memory.strides,
            "version": 3,
        } | members

    @property
    def __cuda_array_interface__(self):
        return self.interface


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

CODES = {"i": 0, "u": 1, "f": 2}


class Exchange(ctypes.Structure):
    """DLPack's table of functions, which says what an array is without a capsule; PyTorch's tensors have one."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("older", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 3),
        ("describe", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))),
        ("current_stream", ctypes.c_void_p),
    ]


def describe(exporter, out):
    exporter.exported = exporter.make()
    out[0] = exporter.exported.tensor
    return 0


EXCHANGE_NAME = b"dlpack_exchange_api"  # a capsule does not copy it
EXCHANGE = Exchange(major=1, minor=3, describe=Exchange._fields_[4][1](describe))


class Exporter:
    """__dlpack__ on any device. versioned: DLPack 1; else an old exporter, which does not know max_version."""

    def __init__(
        self, memory, device=CPU, ordinal=0, versioned=True, read_only=False, major=1, offset=0, null=False
    ):
        self.memory = memory
        self.device = (device, ordinal)
        self.versioned = versioned
        self.flags = int(read_only)
        self.major = major
        self.offset = offset
        self.null = null
        self.asked = None

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        if not self.versioned and "max_version" in options:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked = options
        managed = self.make()
        self.exported = managed  # a real exporter frees it in the capsule's destructor
        name = b"dltensor_versioned" if self.versioned else b"dltensor"
        return new_capsule(ctypes.addressof(managed), name, None)

    def make(self):
        x = self.memory
        extents = ctypes.c_int64 * max(x.ndim, 1)
        tensor = Tensor(
            data=None if self.null else x.ctypes.data - self.offset,
            device_type=self.device[0],
            device_id=self.device[1],
            ndim=x.ndim,
            code=CODES[x.dtype.kind],
            bits=8 * x.itemsize,
            lanes=1,
            shape=extents(*x.shape),
            strides=None if x.flags.c_contiguous else extents(*(s // x.itemsize for s in x.strides)),
            byte_offset=self.offset,
        )
        if self.versioned:
            return Versioned(major=self.major, minor=0, flags=self.flags, tensor=tensor)
        return Managed(tensor=tensor)


class Exchanged(Exporter):
    """An Exporter with the table of functions. pinned: of the host, but by __dlpack_device__."""

    __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(EXCHANGE), EXCHANGE_NAME, None)

    def __init__(self, memory, device=CPU, ordinal=0, pinned=False):
        super().__init__(memory, device, ordinal)
        self.pinned = pinned

    def __dlpack_device__(self):
        return (CUDA_HOST, 0) if self.pinned else self.device

    def __dlpack__(self, **options):
        raise AssertionError("there is a faster way")
