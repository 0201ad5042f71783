"""What a failing guide does to a request: the walk over fakes, as in ``test_pipeline.py``."""

import asyncio
import math

import pytest

from tests.unit.test_pipeline import COSTS, IMPORTANCE, FakeGuide, walk, walking
from vllm_sgl.core import Answer, Reason
from vllm_sgl.errors import GuideError, GuideFailedError, RequestAborted

FAILURES = {
    Reason.GUIDE_FAILED: "ERROR",
    Reason.GUIDE_TIMEOUT: "WARNING",
    Reason.GUIDE_DEAD: None,
    Reason.GUIDE_BUSY: None,
    Reason.GUIDE_UNWELL: None,
}


@pytest.mark.parametrize("reason", FAILURES)
@pytest.mark.parametrize("where", ["fails", "confirm_fails"])
def test_failing_guide_falls_back_to_the_large_model(reason, where, warnings_logged):
    guide = FakeGuide(**{where: GuideError(reason, "broken wire")})
    outcome = walk(guide, exit_threshold=0.0)
    assert outcome.prompt is outcome.answer is None
    report = outcome.report
    assert (report.decision, report.reason, report.visual_tokens, report.kept_tokens) == (
        "bypass", reason, 6, 6,
    )  # fmt: skip
    assert report.guide_seconds is not None
    levels = [record.levelname for record in warnings_logged]
    assert levels == ([] if FAILURES[reason] is None else [FAILURES[reason]])


@pytest.mark.parametrize("reason", FAILURES)
def test_failing_guide_fails_the_request_where_asked_to(reason, warnings_logged):
    guide = FakeGuide(fails=GuideError(reason, "broken wire"))
    with pytest.raises(GuideFailedError, match=f"{reason}.*broken wire"):
        walk(guide, server={"on_error": "fail"})
    told = [record.getMessage() for record in warnings_logged]
    assert len(told) == (FAILURES[reason] is not None)
    assert all(f" fails ({reason}): broken wire" in line for line in told)


@pytest.mark.parametrize("on_error", ["fallback", "fail"])
def test_what_the_guide_refuses_is_left_to_the_large_model(on_error, warnings_logged):
    guide = FakeGuide(fails=GuideError(Reason.GUIDE_REFUSED, "token_id(s) [-1] out of range"))
    outcome = walk(guide, server={"on_error": on_error})
    assert (outcome.report.decision, outcome.report.reason) == ("bypass", "guide_refused")
    assert outcome.prompt is None
    assert warnings_logged == []


class Wrapped(FakeGuide):
    """A user's own, whose every property and method may be wrong."""

    @property
    def context(self):
        raise AttributeError("context")

    @context.setter
    def context(self, value):
        pass


def nothing(*_):
    raise AssertionError("of a policy")


def said(*logprobs):
    return Answer("a", (7, 2), logprobs, True, "stop")


#: What a guide, or what belongs to one, may do wrong: never seen by the client.
WRONG = {
    "look": {"guide": FakeGuide(fails=ValueError("aspect ratio"))},
    "confirm": {"guide": FakeGuide(confirm_fails=KeyError("image"))},
    "sees": {"costs": COSTS, "sees": lambda request: 1 // 0},
    "context": {"guide": Wrapped()},
    "too few items": {"guide": FakeGuide(importance=IMPORTANCE[:1])},
    "too few tokens": {"guide": FakeGuide(importance=[IMPORTANCE[0][:2], IMPORTANCE[1]])},
    "an importance that is no number": {"guide": FakeGuide(importance=[p * math.nan for p in IMPORTANCE])},
    "an importance without end": {"guide": FakeGuide(importance=[IMPORTANCE[0] / 0, IMPORTANCE[1]])},
    "a log-probability that is no number": {"guide": FakeGuide(said(math.nan, -1.0))},
    "a log-probability without end": {"guide": FakeGuide(said(-math.inf, -1.0))},
    "a consistency that is no number": {"guide": FakeGuide(agreement=math.nan)},
    "no result": {"guide": FakeGuide(fails=StopAsyncIteration())},
    "a policy": {"guide": FakeGuide(agreement=0.0), "policies": nothing, "exit_threshold": 0.9},
    "something that it waited for is cancelled": {"guide": FakeGuide(fails=asyncio.CancelledError())},
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_a_guide_does_wrong_is_left_to_the_large_model(wrong, warnings_logged):
    outcome = walk(**{"exit_threshold": 0.0, **WRONG[wrong]})
    report = outcome.report
    assert (report.decision, report.reason, report.kept_tokens) == ("bypass", "guide_failed", 6)
    assert outcome.prompt is outcome.answer is report.kept is None
    assert [record.levelname for record in warnings_logged] == ["ERROR"]
    with pytest.raises(GuideFailedError, match="guide_failed"):
        walk(**{"exit_threshold": 0.0, **WRONG[wrong]}, server={"on_error": "fail"})


@pytest.mark.parametrize("on_error", ["fallback", "fail"])
async def test_client_that_is_gone_is_no_failure(on_error):
    """Aborted by its id, or cancelled while it waits for the guide."""
    with pytest.raises(RequestAborted):
        await walking(FakeGuide(fails=RequestAborted("gone")), server={"on_error": on_error})
    guide = FakeGuide()
    guide.look = lambda *_: asyncio.Event().wait()
    task = asyncio.create_task(walking(guide, server={"on_error": on_error}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
