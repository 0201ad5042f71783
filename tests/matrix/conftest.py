"""A pair of checkpoints per family, and everything that can be started with it."""

from functools import cache

import pytest

from tests.support.engines import Engines

from .cases import CASES
from .checks import CONTEXT


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory):
    """A family's (small, large) checkpoints, made once."""
    return cache(lambda family: family.build(tmp_path_factory.mktemp(family.name)))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """(family, position ids)"""
    return request.param


@pytest.fixture(scope="module")
def pair(case, pair_of):
    return pair_of(case[0])


@pytest.fixture(scope="module")
def engines(case, pair):
    """Both engines in this process; prefix caching is on, as by default."""
    engines = Engines(pair, sgl={"positions": case[1]}, enable_prefix_caching=True, max_model_len=CONTEXT)
    yield engines
    engines.shutdown()
