"""How often a guide is asked about one request: the walk over fakes, as in ``test_pipeline.py``."""

from itertools import product
from typing import get_args

import pytest

from tests.unit.test_pipeline import FakeGuide, walk
from vllm_sgl.config import QueryRows
from vllm_sgl.core import Facts, Reason


@pytest.mark.parametrize("agreement", [0.0, 1.0], ids=["no exit", "exit"])
@pytest.mark.parametrize("no_exit", [None, Reason.N], ids=["may exit", "may not"])
@pytest.mark.parametrize("tokens", [1, 10**9])
def test_a_request_costs_one_look_and_one_confirmation_at_most(agreement, no_exit, tokens):
    """Whatever its keys say: a client cannot make the guide work for it more than once."""
    facts = Facts(visual_tokens=(4, 2), prompt_tokens=20, max_tokens=8, no_exit=no_exit)
    for threshold, retention, rows, enabled in product(
        (0, 0.01, 1, "off"), (1e-9, 0.5, 1), get_args(QueryRows), (0, 1)
    ):
        guide = FakeGuide(agreement=agreement)
        walk(
            guide, facts, exit_threshold=threshold, retention=retention, query_rows=rows, enabled=enabled,
            guide_tokens=tokens,
        )  # fmt: skip
        passes = [name for name, *_ in guide.calls]
        assert passes in ([], ["look"], ["look", "confirm"])
