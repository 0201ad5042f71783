"""What a failing guide does to a request: the walk over fakes, as in ``test_pipeline.py``."""

import asyncio

import pytest

from tests.unit.test_pipeline import FakeGuide, walk
from vllm_sgl.core import Reason
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


@pytest.mark.parametrize("on_error", ["fallback", "fail"])
@pytest.mark.parametrize(
    "error", [RequestAborted("gone"), asyncio.CancelledError()], ids=["aborted", "cancelled"]
)
def test_client_that_is_gone_is_no_failure(error, on_error):
    with pytest.raises(type(error)):
        walk(FakeGuide(fails=error), server={"on_error": on_error})
