"""SGLang's plugin: installs the hooks in the scheduler's process, and a thread that takes commands from drive.py."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import threading
import traceback
from collections import Counter
from multiprocessing.connection import Connection, Listener
from typing import Any

from .steps import Segment

SOCKET, SECONDS = "DRAFTMETA_ENGINE_SOCKET", "DRAFTMETA_ENGINE_SECONDS"


def register() -> None:
    """SGLang calls it in every process; only those that another one started have a scheduler."""
    if SOCKET not in os.environ or multiprocessing.parent_process() is None:
        return
    from . import hooks

    faulthandler.dump_traceback_later(float(os.environ[SECONDS]))  # a run that hangs says where
    installed = hooks.Hooks()
    installed.install()
    Server(installed).start()


class Server:
    def __init__(self, hooks: Any) -> None:
        self.hooks = hooks
        self.counted: Counter[str] = Counter()
        self.listener = Listener(os.environ[SOCKET])

    def start(self) -> None:
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            with self.listener.accept() as connection:
                self.answer_all(connection)

    def answer_all(self, connection: Connection) -> None:
        while True:
            try:
                name, arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send((getattr(self, f"do_{name}")(**arguments), None))
            except Exception:
                connection.send((None, traceback.format_exc()))

    def do_set(self, mode: str | None = None, gate: int | None = None) -> None:
        state = self.hooks.state
        state.mode = state.mode if mode is None else mode
        state.gate = state.gate if gate is None else gate

    def do_program(self, requests: int, segments: list[Segment]) -> None:
        self.hooks.program.load(requests, segments)

    def do_collect(self) -> dict[str, Any]:
        """What has been counted since the last time, and the program's segments that are not done."""
        hooks, uses = self.hooks, self.hooks.uses()
        result = {
            "times": [[*key, values] for key, values in hooks.state.times.items()],
            "uses": dict(uses - self.counted),
            "comparison": hooks.comparison.take(),
            "left": len(hooks.program.segments),
        }
        self.counted = uses
        hooks.state.times.clear()
        return result
