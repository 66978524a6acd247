"""What an engine is started for, and what it is asked there."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parent / "model"
VOCABULARY = 1024  # of the model
STEPS, DRAFT_TOKENS = 3, 4  # of EAGLE
MOST_ACCEPTED = DRAFT_TOKENS  # tokens of a request in a round
SHAPES = [(7, 300), (48, 3000)]  # requests, context


@dataclass(frozen=True)
class Plan:
    """One engine. SGLang's default top-k breaks ties at random, so that beyond 2048 tokens of context its own answers
    differ from run to run: tokens are compared with PyTorch's top-k, and times are taken with the default."""

    name: str
    speculative: bool = False
    fp8: bool = False
    times: bool = False

    @property
    def modes(self) -> str:
        return "ABCD" if self.speculative else "ABC"

    @property
    def kinds(self) -> list[str]:
        return ["draft", "verify", "extend"] if self.speculative else ["decode"]

    def environment(self) -> dict[str, str]:
        return {} if self.times else {"SGLANG_DSA_FUSE_TOPK": "0"}

    def engine_arguments(self) -> dict[str, Any]:
        attention = "flashmla_kv" if self.fp8 else "flashmla_sparse"
        arguments: dict[str, Any] = dict(
            model_path=str(MODEL),
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="bfloat16",
            kv_cache_dtype="fp8_e4m3" if self.fp8 else "bfloat16",
            dsa_prefill_backend=attention,
            dsa_decode_backend=attention,
            moe_runner_backend="triton",
            sampling_backend="pytorch",
            grammar_backend="none",
            context_length=8192,
            max_total_tokens=300032,
            mem_fraction_static=0.3,
            max_running_requests=64,
            cuda_graph_bs_decode=[1, 2, 4, 8, 16, 24, 32, 48],
            disable_prefill_cuda_graph=True,
            disable_radix_cache=True,
            disable_custom_all_reduce=True,
            chunked_prefill_size=8192,
            random_seed=1,
            skip_server_warmup=True,
            log_level="info",
        )
        if not self.times:
            arguments.update(dsa_topk_backend="torch")
        if self.speculative:
            arguments.update(speculative_algorithm="EAGLE", speculative_num_steps=STEPS)
            arguments.update(speculative_eagle_topk=1, speculative_num_draft_tokens=DRAFT_TOKENS)
        return arguments


PLANS = {
    plan.name: plan
    for plan in (
        Plan("eagle-times", speculative=True, times=True),
        Plan("eagle", speculative=True),
        Plan("plain-times", times=True),
        Plan("plain"),
        Plan("eagle-fp8", speculative=True, fp8=True),
        Plan("eagle-fp8-times", speculative=True, fp8=True, times=True),
    )
}
DEFAULT = ["eagle-times", "eagle", "plain-times", "plain"]


class Prompts:
    """The same requests in every run: contexts around the edges of pages and of the top-k, and others."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        edges = [5, 17, 63, 64, 65, 130, 700, 1500, 2040, 2047, 2048, 2049, 2100, 3000, 4000, 5000]
        others = [3, 40, 100, 300, 500, 900, 1900, 2300, 2600]
        lengths = edges + [self.random.choice(others) for _ in range(64 - len(edges))]
        self.requests = [self.prompt(length) for length in lengths]
        self.new_tokens = [self.random.choice([12, 24, 32, 40, 48, 64]) for _ in lengths]

    def prompt(self, length: int) -> list[int]:
        return [self.random.randrange(2, VOCABULARY) for _ in range(length)]


# Of these requests, from and to: alone, a few, and more than the largest captured graph, which runs eagerly.
GROUPS = [(0, 1), (4, 5), (10, 11), (12, 13), (15, 16), (0, 3), (3, 8), (0, 11), (5, 32), (0, 43), (0, 64)]
QUICK_GROUPS = [(4, 5), (0, 3), (0, 43)]
