"""Runs draftmeta inside a real SGLang engine, on a machine with an NVIDIA GPU: ./ci/engine sglang"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import packages, report
from .plans import DEFAULT, PLANS
from .plugin import SECONDS, SOCKET

LEAST_SECONDS = 75  # an engine that has less comes up, if at all, for nothing
MOST_SECONDS = 900  # of one engine: more than any needs
MOST_STUBS = 4
JIT_LEFT_OUT = (".o", ".d")
PLUGIN = "[sglang.srt.plugins]\ndraftmeta_engine = engine.plugin:register\n"
METADATA = "Metadata-Version: 2.1\nName: draftmeta-engine\nVersion: 0\n"
SETTINGS = {
    "SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD": "0",  # no dense attention, whose library is left out
    "SGLANG_JIT_DEEPGEMM_PRECOMPILE": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DRAFTMETA_VERBOSE": "1",
    "PYTHONUNBUFFERED": "1",
}


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/engine sglang",
        description="draftmeta inside a real SGLang engine: tokens and tensors compared, refreshes timed.",
        epilog=f"Plans: {', '.join(PLANS)}. Exit status: 0 all is well, 1 something differs, failed or, with --strict, "
        "misses a bar, 2 wrong usage, 3 something was skipped.",
    )
    add = parser.add_argument
    add(
        "--site", type=Path, default=Path("build/engine"), help="the folder that --prepare made [%(default)s]"
    )
    add("--wheels", type=Path, help="take wheels from this folder, not site.tar.xz, nor PyPI for --prepare")
    add("--draftmeta", type=Path, help="draftmeta's wheel, or a folder that has it [the one in --site]")
    add("--out", type=Path, default=Path("build/engine-report"), help="where the results go [%(default)s]")
    add("--work", type=Path, help="unpack here; JIT caches need one place [a folder in /tmp]")
    add("--plan", help=f"plans, separated by commas [{','.join(DEFAULT)}]")
    add("--quick", action="store_true", help="fewer requests and steps")
    add("--strict", action="store_true", help="a missed bar is a failure")
    add("--limit", type=int, help="end within so many seconds; plans that do not fit are skipped")
    add("--save-jit", action="store_true", help="keep what was compiled, as jit.tar.xz, in --out")
    add("--prepare", action="store_true", help="only fetch, trim and pack; needs a network, and no GPU")
    options = parser.parse_args(arguments)
    options.plans = (options.plan or ",".join(DEFAULT)).split(",")
    unknown = [name for name in options.plans if name not in PLANS]
    if unknown:
        parser.error(f"unknown plan {unknown[0]}; the plans are: {', '.join(PLANS)}")
    return options


class Clock:
    def __init__(self, limit: int | None, kept: int) -> None:
        self.start, self.limit, self.kept = time.monotonic(), limit, kept

    def passed(self) -> float:
        return time.monotonic() - self.start

    def left(self) -> float:
        """Seconds that an engine may take."""
        return MOST_SECONDS if self.limit is None else self.limit - self.kept - self.passed()


class Workplace:
    """The unpacked packages, JIT caches, logs and results of the plans."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, self.jit, self.logs = folder / "site", folder / "jit", folder / "logs"
        self.draftmeta, self.plugin = folder / "draftmeta", folder / "plugin"
        self.stubs: list[str] = []

    def set_up(self, options: argparse.Namespace) -> None:
        for old in (self.logs, self.draftmeta, self.plugin):
            shutil.rmtree(old, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.jit.mkdir(exist_ok=True)
        self.unpack(options)
        self.draftmeta = packages.install_draftmeta(
            packages.find_draftmeta(options.draftmeta, options.site).resolve(), self.draftmeta
        )
        for module in packages.STUBS:
            packages.add_stub(self.site, module)
        info = self.plugin / "draftmeta_engine-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(METADATA)
        (info / "entry_points.txt").write_text(PLUGIN)

    def unpack(self, options: argparse.Namespace) -> None:
        """The packages, and JIT caches if there are any, unless they are there from the last time."""
        if self.site.exists():
            return
        part = self.folder / "site.part"
        shutil.rmtree(part, ignore_errors=True)
        if options.wheels:
            packages.unpack_wheels(options.wheels, part)
        else:
            packages.unpack(options.site / packages.SITE, part)
        if (options.site / packages.JIT).exists():
            packages.unpack(options.site / packages.JIT, self.jit)
        part.rename(self.site)

    def environment(self) -> dict[str, str]:
        path = [self.plugin, self.draftmeta, packages.ROOT / "bench", self.site]
        own = {
            "PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # ninja
            "CUDA_HOME": os.environ.get("CUDA_HOME", "/usr/local/cuda"),
            "MAX_JOBS": str(os.cpu_count()),
            "HOME": str(self.jit),
            "XDG_CACHE_HOME": str(self.jit / ".cache"),
            "TRITON_CACHE_DIR": str(self.jit / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.jit / "inductor"),
            "SGLANG_CACHE_DIR": str(self.jit / "sglang"),
            SOCKET: str(self.folder / "socket"),
        }
        return {**os.environ, **SETTINGS, **own}


class Run:
    def __init__(self, options: argparse.Namespace, workplace: Workplace, clock: Clock) -> None:
        self.options, self.workplace, self.clock = options, workplace, clock

    def all(self) -> list[dict[str, Any]]:
        return [self.plan(name) for name in self.options.plans]

    def plan(self, name: str) -> dict[str, Any]:
        """The result of a plan; an engine that lacks a module is started again with an empty one in its place."""
        for _ in range(MOST_STUBS):
            seconds = min(self.clock.left(), MOST_SECONDS)
            if seconds < LEAST_SECONDS:
                return self.skip(name, f"{max(seconds, 0):.0f} s were left")
            log = self.workplace.logs / f"{name}.log"
            status = self.start(name, log, seconds)
            result = self.read(name)
            self.show(name, log, status)
            if result.get("done"):
                return result
            if status is None:
                return self.skip(name, f"cut short after {seconds:.0f} s", result)
            module = missing_module(log.read_text(errors="replace"))
            if not module or not packages.add_stub(self.workplace.site, module):
                break
            print(f"engine: there is no module {module}: an empty one takes its place", flush=True)
            self.workplace.stubs.append(module)
        return {"error": f"exit status {status}", **result}

    def skip(self, name: str, why: str, result: dict[str, Any] | None = None) -> dict[str, Any]:
        print(f"SKIPPED: {name}: {why}", flush=True)
        return {"plan": name, **(result or {}), "skipped": why}

    def start(self, name: str, log: Path, seconds: float) -> int | None:
        """The exit status of an engine that ran through the plan; None if its time was over."""
        print(f"engine: {name}, {self.clock.passed():.0f} s after the start", flush=True)
        quick = ["quick"] if self.options.quick else []
        command = [sys.executable, "-m", "engine.drive", name, str(self.result_path(name)), *quick]
        environment = self.workplace.environment() | PLANS[name].environment() | {SECONDS: str(seconds - 10)}
        Path(environment[SOCKET]).unlink(missing_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.workplace.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                end(process)

    def result_path(self, name: str) -> Path:
        return self.workplace.logs / f"{name}.json"

    def read(self, name: str) -> dict[str, Any]:
        path = self.result_path(name)
        return json.loads(path.read_text()) if path.exists() else {"plan": name}

    def show(self, name: str, log: Path, status: int | None) -> None:
        """What the plan said, and if it failed the errors in its log and its end."""
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(line[:200] for line in lines if line.startswith("drive:")), flush=True)
        if status:
            errors = [line for line in lines if re.search("error|traceback", line, re.IGNORECASE)]
            print(f"FAILED: {name}: exit status {status}")
            print("\n".join(line[:300] for line in errors[-15:] + ["..."] + lines[-20:]), flush=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """The engine's processes are one session, with its first process's number."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def missing_module(log: str) -> str | None:
    """The module that an uncaught import asked for; what SGLang only warns of it does without."""
    found = re.findall(r"^ModuleNotFoundError: No module named '([A-Za-z0-9_.]+)'", log, re.MULTILINE)
    return found[-1] if found else None


def gpu_name() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("engine: there is no NVIDIA GPU here: nvidia-smi names none") from None


def save(options: argparse.Namespace, workplace: Workplace, gpu: str, results: list[dict[str, Any]]) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    text = f"{gpu}\n\n{report.write(results, workplace.stubs)}"
    (options.out / "report.md").write_text(text)
    bars = [dataclasses.asdict(bar) for bar in report.bars(results)]
    summary = {"gpu": gpu, "quick": options.quick, "stubs": workplace.stubs, "bars": bars, "plans": results}
    (options.out / "results.json").write_text(json.dumps(summary, indent=1))
    packages.pack(workplace.logs, options.out / "logs.tar.xz", preset=1)
    if options.save_jit:
        packages.pack(workplace.jit, options.out / packages.JIT, preset=1, left_out=JIT_LEFT_OUT)
    print(f"\n{text}\nresults are in {options.out}")


def main() -> int:
    options = options_of(sys.argv[1:])
    clock = Clock(options.limit, kept=40 if options.save_jit else 15)
    if options.prepare:
        packages.prepare(options.site, options.wheels)
        return 0
    if platform.python_version_tuple()[:2] != tuple(packages.PYTHON.split(".")):
        raise SystemExit(
            f"engine: the packages are for Python {packages.PYTHON}, this is {platform.python_version()}"
        )
    gpu = gpu_name()
    if not options.wheels and not (options.site / packages.SITE).exists():
        packages.prepare(options.site)
    folder = options.work or Path(tempfile.gettempdir(), f"draftmeta-engine-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    workplace = Workplace(folder.resolve())
    workplace.set_up(options)
    results = Run(options, workplace, clock).all()
    save(options, workplace, gpu, results)
    print(f"{clock.passed():.0f} s in all")
    return report.status(results, options.strict)


if __name__ == "__main__":
    sys.exit(main())
