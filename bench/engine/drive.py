"""Starts one SGLang engine and takes it through a plan: python -m engine.drive PLAN RESULT.json [quick]

Everything learnt so far is in the result's file at any time, for the run may be cut short."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections import defaultdict
from multiprocessing.connection import Client
from pathlib import Path
from statistics import median
from typing import Any

from . import trace
from .plans import GROUPS, MOST_ACCEPTED, PLANS, QUICK_GROUPS, SHAPES, Plan, Prompts
from .plugin import SOCKET
from .steps import Segment

Answers = dict[str, list[list[int]]]


class Drive:
    def __init__(self, plan: Plan, path: Path, quick: bool) -> None:
        self.plan, self.path, self.quick = plan, path, quick
        self.start = time.monotonic()
        self.result: dict[str, Any] = {"plan": plan.name, "done": False, "tokens": {}, "shapes": {}}
        self.prompts, self.batch = Prompts(), 0

    def run(self) -> None:
        from sglang import Engine

        self.engine = Engine(**self.plan.engine_arguments())
        self.result["startup_s"] = round(time.monotonic() - self.start, 1)
        self.say("the engine is up")
        self.connection = connect(os.environ[SOCKET])
        self.generate([self.prompts.requests[0]], [4])
        if self.plan.times:
            self.measure()
        else:
            self.compare()
        self.result["done"] = True
        self.say("done")
        self.engine.shutdown()

    def say(self, text: str) -> None:
        print(f"drive: {time.monotonic() - self.start:6.1f} s  {text}", flush=True)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.result))
        temporary.replace(self.path)

    def ask(self, command: str, **arguments: Any) -> Any:
        """A command for the plugin in the scheduler's process."""
        self.connection.send((command, arguments))
        answer, error = self.connection.recv()
        if error:
            raise RuntimeError(f"in the scheduler: {error}")
        return answer

    def generate(self, prompts: list[list[int]], tokens: list[int]) -> list[list[int]]:
        """Greedy answers; the requests are let in together."""
        self.ask("set", gate=len(prompts))
        self.batch += 1
        answers = self.engine.generate(
            input_ids=prompts,
            sampling_params=[
                {"temperature": 0.0, "max_new_tokens": count, "ignore_eos": True} for count in tokens
            ],
            rid=[f"batch{self.batch:04d}_{i:04d}" for i in range(len(prompts))],
        )
        self.ask("set", gate=0)
        return [answer["output_ids"] for answer in answers]

    # ---- Tokens and tensors ----

    def compare(self) -> None:
        """Every mode answers the same requests; SGLang itself a second time, for what differs there says nothing."""
        reference: Answers = {}
        for name in ["A", "A again", *self.plan.modes[1:], "S"]:
            answers = self.answers(name[0])
            reference = reference or answers
            self.note_tokens(name, reference, answers)

    def answers(self, mode: str) -> Answers:
        self.ask("set", mode=mode)
        result: Answers = {}
        for first, end in QUICK_GROUPS if self.quick else GROUPS:
            group = self.prompts.requests[first:end], self.prompts.new_tokens[first:end]
            result[f"{first} to {end}"] = self.generate(*group)
        return result

    def note_tokens(self, name: str, reference: Answers, answers: Answers) -> None:
        pairs = [(a, b) for group in reference for a, b in zip(reference[group], answers[group], strict=True)]
        collected = self.ask("collect")
        self.result["tokens"][name] = {
            "requests": len(pairs),
            "tokens": sum(len(answer) for _, answer in pairs),
            "differing": sum(a != b for a, b in pairs),
            "distinct": len({token for _, answer in pairs for token in answer}),
            "uses": collected["uses"],
            "comparison": collected["comparison"],
        }
        self.say(
            f"tokens of {name}: {self.result['tokens'][name]['differing']} of {len(pairs)} requests differ"
        )

    # ---- Times ----

    def measure(self) -> None:
        for requests, context in SHAPES:
            shape = self.result["shapes"].setdefault(f"{requests} x {context}", {"gpu": {}, "host_us": {}})
            self.trace(requests, context, shape)
            self.time(requests, context, shape)
        self.shadow()

    def trace(self, requests: int, context: int, shape: dict[str, Any]) -> None:
        """The GPU's operations, mode by mode in one generation."""
        steps = 4 if self.quick else 12
        paths = {
            mode: self.path.with_name(f"trace-{self.plan.name}-{requests}-{mode}.json")
            for mode in self.plan.modes
        }
        collected = self.program(
            requests, context, [Segment(mode, 6, steps, str(path)) for mode, path in paths.items()]
        )
        shape["uses"] = collected["uses"]
        for mode, path in paths.items():
            shape["gpu"][mode] = trace.summarise(trace.reduce(path))
        self.say(f"traces of {requests} x {context}")

    def time(self, requests: int, context: int, shape: dict[str, Any]) -> None:
        """Host time of refreshes: the modes take turns, so that all see the same clocks and contexts."""
        rounds = 1 if self.quick else 5
        collected = self.program(
            requests, context, [Segment(mode, 4, 16) for mode in self.plan.modes] * rounds
        )
        times: dict[str, dict[str, list[float]]] = defaultdict(dict)
        for mode, kind, values in collected["times"]:
            ordered = sorted(value / 1000 for value in values)
            times[mode][kind] = [
                median(ordered),
                ordered[len(ordered) // 10],
                ordered[len(ordered) * 9 // 10],
            ]
        shape["host_us"] = times
        self.say(f"host times of {requests} x {context}")

    def program(self, requests: int, context: int, segments: list[Segment]) -> dict[str, Any]:
        """A generation that is long enough for all segments, however many drafts are accepted."""
        steps = sum(segment.skip + segment.steps for segment in segments) + 2
        tokens = steps * (MOST_ACCEPTED if self.plan.speculative else 1)
        self.ask("collect")
        self.ask("program", requests=requests, segments=segments)
        self.generate([self.prompts.prompt(context) for _ in range(requests)], [tokens] * requests)
        collected: dict[str, Any] = self.ask("collect")
        if collected["left"]:
            raise RuntimeError(f"{collected['left']} of {len(segments)} segments were not run")
        return collected

    def shadow(self) -> None:
        """Tensors once more, with the top-k that the times belong to."""
        self.ask("set", mode="S")
        self.ask("collect")
        for first, end in QUICK_GROUPS:
            self.generate(self.prompts.requests[first:end], self.prompts.new_tokens[first:end])
        self.result["shadow"] = self.ask("collect")["comparison"]
        self.ask("set", mode="A")
        self.say("tensors compared")


def connect(address: str) -> Any:
    """The plugin listens before the engine is up; it is not there if it failed to install itself."""
    try:
        return Client(address)
    except OSError as error:
        raise RuntimeError("the plugin is not running: the log says why, at 'Failed to execute'") from error


def main() -> None:
    drive = Drive(PLANS[sys.argv[1]], Path(sys.argv[2]), "quick" in sys.argv[3:])
    try:
        drive.run()
    except BaseException:
        drive.result["error"] = traceback.format_exc()
        drive.say(f"FAILED: {drive.result['error']}")
        raise


if __name__ == "__main__":
    main()
