"""What a step's encoder budget pays for: over a made-up scheduler that charges as vLLM's does."""

from types import SimpleNamespace

import pytest
import torch
from vllm.multimodal.inputs import PlaceholderRange

from vllm_sgl.host.worker.encoder_budget import ChargesEncoding

ROWS = "rows"


class VLLMs:
    """Takes items that begin inside what is to be computed, as far as the budget goes."""

    max_num_encoder_input_tokens = 100

    def _try_schedule_encoder_inputs(self, request, computed, new, budget, shift=0):
        items = []
        for number, item in enumerate(request.mm_features):
            place = item.mm_position
            if not computed <= place.offset < computed + new + shift:
                continue
            if place.get_num_embeds() > budget:
                return items, max(0, place.offset - computed - shift), budget, [], []
            items.append(number)
            budget -= place.get_num_embeds()
        return items, new, budget, [], []


class Ours(ChargesEncoding, VLLMs):
    rows_field = ROWS


def request(*encoded):
    """Images of five tokens each at 10, 20, 30, ...; None for one that is not guided."""
    return SimpleNamespace(
        mm_features=[
            SimpleNamespace(
                data={} if rows is None else {ROWS: SimpleNamespace(data=torch.tensor(rows))},
                mm_position=PlaceholderRange(offset=10 * number, length=5),
            )
            for number, rows in enumerate(encoded, 1)
        ]
    )


@pytest.mark.parametrize(
    ("encoded", "budget", "expected"),
    [
        ((40,), 100, ([0], 50, 60)),
        ((None,), 100, ([0], 50, 95)),  # as vLLM charges it
        ((0,), 100, ([0], 50, 95)),  # never less than what is left of it
        ((40, 40), 100, ([0, 1], 50, 20)),
        ((40, 40, 40), 100, ([0, 1], 30, 20)),  # up to the third
        ((40,), 30, ([], 10, 30)),  # another request has taken the rest
        ((140,), 100, ([0], 50, 0)),  # alone it always fits: it would never be encoded else
        ((140, 10), 100, ([0], 20, 0)),
        ((40, None, 60), 100, ([0, 1], 30, 55)),
    ],
    ids=str,
)
def test_a_prompt_ends_before_the_first_item_that_is_too_much(encoded, budget, expected):
    found = Ours()._try_schedule_encoder_inputs(request(*encoded), 0, 50, budget)
    assert found == (*expected, [], [])


def test_nothing_is_computed_where_an_item_that_does_not_fit_comes_next():
    asked = request(40, 40)
    assert Ours()._try_schedule_encoder_inputs(asked, 10, 40, 30) == ([], 0, 30, [], [])
    assert Ours()._try_schedule_encoder_inputs(asked, 15, 40, 30) == ([], 5, 30, [], [])


def test_a_prompt_ends_early_enough_for_a_draft_that_looks_ahead():
    found = Ours()._try_schedule_encoder_inputs(request(40, 70), 0, 50, 100, shift_computed_tokens=1)
    assert found == ([0], 19, 60, [], [])
    assert Ours()._try_schedule_encoder_inputs(request(70), 0, 50, 60, 1) == ([], 9, 60, [], [])
