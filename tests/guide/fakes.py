"""Guides and clocks that do as a test tells them."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

from vllm_sgl.core import Answer, GuideRequest, GuideResult, Reason, VisualItem
from vllm_sgl.errors import GuideError, RequestAborted

RESULT = GuideResult([], Answer("yes", (7, 8, 2), (-0.5, -0.5, -0.5), True, "stop"))
SILENT = GuideError(Reason.GUIDE_TIMEOUT, "no answer after 5.0 s")
DEAD = GuideError(Reason.GUIDE_DEAD, "the small engine died")


def request(id: str, tokens: int = 10, priority: int = 0, visual: int = 0, max_tokens: int = 64):
    """A request whose prompt has so many tokens, visual ones among them."""
    prompt = {"prompt_token_ids": [0] * tokens}
    items = (VisualItem("image", visual),) if visual else ()
    return GuideRequest(id, prompt, items, SimpleNamespace(), max_tokens, "prompt", priority)


async def settle():
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class HeldGuide:
    """Answers, or fails, only when told to. running: requests with it now; begun: all that ever were."""

    context: int = 1024
    alive: bool = True
    probe_fails: BaseException | None = None
    begun: list[str] = field(default_factory=list)
    running: dict[str, asyncio.Future] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def sees(self, request):
        return sum(request.visual_tokens)

    async def start(self):
        self.calls.append("start")

    async def look(self, request, answer_tokens):
        return await self._hold(request.id)

    async def confirm(self, request, result, share):
        return await self._hold(f"confirm {request.id}")

    async def probe(self):
        self.calls.append("probe")
        if self.probe_fails is not None:
            raise self.probe_fails

    async def abort(self, request_id):
        self.calls.append(f"abort {request_id}")
        if request_id in self.running:
            self.running[request_id].set_exception(RequestAborted(request_id))

    def stop(self, timeout=None):
        self.alive = False
        self.calls.append("stop")

    def answer(self, id, result=RESULT):
        self.running[id].set_result(result)

    def fail(self, id, error):
        self.running[id].set_exception(GuideError(error.reason, str(error)))

    async def _hold(self, name):
        self.begun.append(name)
        self.running[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.running[name]
        finally:
            del self.running[name]


class Clock:
    """Stands still but for :meth:`forward`; ``sleep`` waits for it. slept: every sleep's seconds."""

    def __init__(self):
        self.now = 0.0
        self.slept = []
        self._waiting = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append((self.now + seconds, woken))
        await woken

    async def forward(self, seconds):
        """Let so many seconds pass, and let everyone act whose time comes, in order."""
        await settle()
        end = self.now + seconds
        while due := [(when, woken) for when, woken in self._waiting if when <= end and not woken.done()]:
            when, woken = min(due, key=lambda one: one[0])
            self.now = when
            woken.set_result(None)
            await settle()
            self._waiting = [one for one in self._waiting if not one[1].done()]
        self.now = end
