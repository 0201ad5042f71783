"""A pair that most tests here look into."""

import pytest

from tests.support.engines import Engines


@pytest.fixture(scope="module")
def engines(qwen2_pair):
    engines = Engines(qwen2_pair, enable_prefix_caching=True)
    yield engines
    engines.shutdown()
