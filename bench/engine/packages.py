"""The Python packages of an SGLang engine that runs the small model here, without what it does not need.

Their files are 4% of what pip would install with SGLang, and fit into one archive of about 42 MB, site.tar.xz. Nothing
here is part of draftmeta: the packages keep their own licences and are never committed."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
SITE, JIT = "site.tar.xz", "jit.tar.xz"
PYTHON = "3.12"
# What the machine has to bring: Python 3.12, torch 2.11, triton 3.6, CUDA 13 with nvcc and ninja, and the libraries that
# come with a machine for such work (NumPy, SciPy, requests, aiohttp, psutil, einops, Pillow, huggingface-hub ...).
WHEELS = """
    sglang==0.5.17 sglang-kernel==0.4.5 sgl-deep-gemm==0.1.5.post1 flashinfer-python==0.6.15.post1
    apache-tvm-ffi==0.1.11 transformers==5.12.1 tokenizers==0.22.2 compressed-tensors==0.20.1 xgrammar==0.2.9
    fastapi==0.116.1 starlette==0.47.2 uvicorn==0.54.0 pydantic==2.14.4 pydantic_core==2.50.5 annotated-types==0.8.0
    typing-inspection==0.4.5 openai==2.6.1 jiter==0.19.0 distro==1.9.0 sniffio==1.3.1 python-multipart==0.0.34
    pyzmq==27.3.0 pybase64==1.5.1 orjson==3.13.0 msgspec==0.22.0 dill==0.4.1 gguf==0.19.0 loguru==0.7.3
    partial-json-parser==0.2.1.1.post7 setproctitle==1.3.8 watchfiles==1.3.0 zstandard==0.25.0
""".split()
# Members that are left out, by the distribution's name in its wheel's name.
LEFT_OUT = {
    "sglang": r"sglang/(multimodal_gen|test|benchmark|eval)/|sglang/srt/\w+/_core\.",
    "sglang_kernel": r"sgl_kernel/(flash_ops|infllm_ops|sm100/)",  # FA3, InfLLM, Blackwell
    "flashinfer_python": r"flashinfer/data/(?!csrc/|include/)",
}
# Modules that are imported and not used: an empty one takes their place.
STUBS = ["IPython.display"]
STUB = """def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
"""


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


def download(folder: Path) -> None:
    """All wheels from PyPI, for Python 3.12 on x86-64 Linux, whatever runs here."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 36)]
    platforms += ["manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
    target = ["--implementation=cp", f"--python-version={PYTHON}", "--abi=cp312", "--abi=abi3", "--abi=none"]
    target += [f"--platform={name}" for name in platforms]
    pip("download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={folder}", *target, *WHEELS)


def build_draftmeta(folder: Path) -> None:
    """draftmeta's wheel, with device code of one NVIDIA GPU: that of the H100 and the H200."""
    defines = ["-Ccmake.define.DRAFTMETA_CUDA_TARGETS=90", "-Ccmake.define.DRAFTMETA_HIP=OFF"]
    for old in folder.glob("draftmeta-*.whl"):
        old.unlink()
    pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", *defines, str(ROOT))


def wanted(wheel: str, members: Iterable[str]) -> Iterator[str]:
    left_out = LEFT_OUT.get(wheel.split("-")[0])
    for member in members:
        if not member.endswith("/") and not (left_out and re.match(left_out, member)):
            yield member


def unpack_wheels(wheels: Path, site: Path) -> None:
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"there are no wheels in {wheels}")
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site, wanted(wheel.name, archive.namelist()))


def pack(folder: Path, archive: Path, preset: Literal[1, 9] = 9, left_out: tuple[str, ...] = ()) -> None:
    """What is in the folder, as a .tar.xz; without files that end in one of left_out."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.name.endswith(left_out) else member

    with tarfile.open(archive, "w:xz", preset=preset) as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, entry.name, filter=kept)


def unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="tar")


def add_stub(site: Path, module: str) -> bool:
    """Puts an empty module there; False if there is one already."""
    path = site.joinpath(*module.split("."), "__init__.py")
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB)
    return True


def prepare(folder: Path, wheels: Path | None = None) -> None:
    """site.tar.xz and draftmeta's wheel, for a machine without a network; from PyPI if no folder of wheels is given.

    An archive of the same packages is kept; the wheel is always built."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "site.txt"
    wanted_list = "\n".join(WHEELS) + "\n"
    if not (folder / SITE).exists() or not listed.exists() or listed.read_text() != wanted_list:
        pack_site(folder / SITE, wheels)
        listed.write_text(wanted_list)
    build_draftmeta(folder)
    for file in sorted(folder.glob("*.*")):
        print(f"{file.stat().st_size / 2**20:6.1f} MiB  {file}")


def pack_site(archive: Path, wheels: Path | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary, "site")
        if wheels is None:
            wheels = Path(temporary, "wheels")
            print(f"engine: fetching {len(WHEELS)} wheels, 0.5 GB", flush=True)
            download(wheels)
        unpack_wheels(wheels, site)
        print("engine: packing them, a minute or two", flush=True)
        pack(site, archive)


def find_draftmeta(given: Path | None, folder: Path) -> Path:
    """A wheel, or a folder that has the package: what is given, itself or in that folder, or the folder's wheel."""
    place = given or folder
    if place.suffix == ".whl" or (place / "draftmeta" / "__init__.py").exists():
        return place
    found = sorted(place.glob("draftmeta-*.whl"))
    if not found:
        raise SystemExit(
            f"engine: there is no wheel of draftmeta in {place}: name one with --draftmeta, or --prepare"
        )
    return found[-1]


def install_draftmeta(found: Path, folder: Path) -> Path:
    """The folder from which draftmeta can be imported."""
    if found.suffix != ".whl":
        return found
    with zipfile.ZipFile(found) as archive:
        archive.extractall(folder)
    return folder
