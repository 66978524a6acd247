#!/usr/bin/env python3
"""Fetches the peers from PyPI and keeps only the files that the comparison runs.

The result is a folder of small wheels, which can be carried to a machine without a network:

    python bench/peers/fetch.py --out build/peers/wheels
    python bench/peers/run.py --wheels build/peers/wheels

Nothing here is part of draftmeta: the wheels keep their own licences and are never committed."""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Distribution, version, and the members that are kept; none of their dependencies is needed. sgl_deep_gemm 0.2.5 is
# SGLang's own and loads with torch 2.14 or later; 0.1.5.post1 computes the same schedule on SM90 and loads with 2.11.
PEERS = [
    (
        "sglang",
        "0.5.23",
        ["sglang/kernels/ops/attention/dsa/metadata.py", "sglang/kernels/ops/attention/dsa/kpool_metadata/"]
        + ["sglang/kernels/ops/attention/pad.py"],
    ),
    ("sgl_deep_gemm", "0.2.5", ["deep_gemm/"]),
    ("sgl_deep_gemm", "0.1.5.post1", ["deep_gemm/"]),
    ("apache_tvm_ffi", "0.1.11", ["tvm_ffi/"]),  # which that is built on
    ("flag_gems", "5.0.2", ["flag_gems/ops/get_paged_mqa_logits_metadata.py"]),
]
ALWAYS = (".dist-info/METADATA", ".dist-info/licenses/", ".dist-info/LICENSE")


def wanted(member, kept):
    return any(member.startswith(prefix) for prefix in kept) or any(part in member for part in ALWAYS)


def trim(wheel, out, kept):
    """Copies the wanted members of a wheel into a wheel of the same name."""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            if wanted(member, kept) and not member.endswith("/"):
                target.writestr(source.getinfo(member), source.read(member), zipfile.ZIP_DEFLATED)


def download(name, version, python, folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python] if python else []
    subprocess.run(command + ["--dest", str(folder), f"{name}=={version}"], check=True)
    return next(Path(folder).glob(f"{name}-*.whl"))


def fetch(out, python=None):
    """Downloads every peer, for another version of Python if one is named; returns those that could not be had."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    missing = []
    for name, version, kept in PEERS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                wheel = download(name, version, python, folder)
                trim(wheel, out / wheel.name, kept)
            except (subprocess.CalledProcessError, StopIteration) as error:
                print(f"fetch: {name}=={version} is left out: {error}", file=sys.stderr)
                missing.append(f"{name}=={version}")
    return missing


def unpack(wheels, folder):
    """Unpacks the wanted members of a folder's wheels, trimmed or whole; each peer's folder by (name, version)."""
    found = {}
    for name, version, kept in PEERS:
        for wheel in sorted(Path(wheels).glob(f"{name}-{version}-*.whl"))[:1]:
            found[name, version] = Path(folder) / f"{name}-{version}"
            with zipfile.ZipFile(wheel) as source:
                source.extractall(found[name, version], [m for m in source.namelist() if wanted(m, kept)])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="build/peers/wheels", help="where the wheels go [%(default)s]")
    parser.add_argument(
        "--python", help="the version of Python that will run them, for example 3.12 [this one's]"
    )
    options = parser.parse_args()
    missing = fetch(options.out, options.python)
    for wheel in sorted(Path(options.out).glob("*.whl")):
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
