"""``vllm serve`` with SGL, but for requests that want random tokens: they get them without a guide's pass.

    python -m benchmarks.serve.random_guide serve MODEL ...

Random pruning is the control that costs nothing: the large model is given as many tokens, chosen by nobody.
All other requests are guided as ever.
"""

import random
import runpy
from typing import Any

#: Key of a request that wants random tokens.
RANDOM = "benchmark_random"
#: The engines' processes import this file too, so it imports nothing that they do not need.
_VLLM = "vllm.entrypoints.cli.main"


class RandomGuide:
    """Answers for the small model's guide where a request asks for random tokens; passes on all else."""

    def __init__(self, guide: Any) -> None:
        self._guide = guide
        self._drawn = random.Random(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guide, name)

    async def look(self, request: Any, answer_tokens: int) -> Any:
        """As the guide; without an answer where tokens are random."""
        if RANDOM not in (request.params.extra_args or {}):
            return await self._guide.look(request, answer_tokens)
        import torch

        from vllm_sgl.core import Answer, GuideResult

        generator = torch.Generator().manual_seed(self._drawn.getrandbits(62))
        importance = [torch.rand(count, generator=generator) for count in request.visual_tokens]
        return GuideResult(importance, Answer("", (), (), finished=False, finish_reason=None))


def main() -> None:
    from vllm_sgl.engine.client import SGLAsyncLLM

    SGLAsyncLLM.wrap_guide = staticmethod(RandomGuide)
    runpy.run_module(_VLLM, run_name="__main__")


if __name__ == "__main__":
    main()
