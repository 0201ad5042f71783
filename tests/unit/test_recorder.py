"""Which rows of a batch count: the recorder over a made-up paged cache, against one dense softmax."""

import pytest
import torch

from vllm_sgl.guide.local.recorder import Recorder, query_rows

HEADS, HEAD_DIM, BLOCK, LAYERS = 2, 4, 8, 3
CPU = torch.device("cpu")


class Sequence:
    """One request's Q and K in every layer, known to the end of its life. due: positions whose rows count;
    by default every one after the last visual token."""

    def __init__(self, seed: int, length: int, visual: range, due: range | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (LAYERS, length, HEADS, HEAD_DIM)
        self.query = torch.randn(shape, generator=generator)
        self.key = torch.randn(shape, generator=generator)
        self.visual = torch.tensor(list(visual))
        self.due = range(visual.stop, length) if due is None else due

    def dense(self, rows: range) -> torch.Tensor:
        """Mass per visual token [N], rows are positions."""
        mass = torch.zeros(len(self.visual), dtype=torch.float64)
        for query, key in zip(self.query.double(), self.key.double(), strict=True):
            for row in rows:
                scores = torch.einsum("hd,khd->hk", query[row], key[: row + 1]) * HEAD_DIM**-0.5
                mass += scores.softmax(-1)[:, self.visual].sum(0)
        return mass.float()


class Engine:
    """Feeds steps to a recorder the way the worker extension does."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def step(self, *parts: tuple[str | None, Sequence, int, int], layers: int = LAYERS) -> None:
        """parts: key, sequence, first and end position that this step computes."""
        source = object()
        tracked = [
            None if key is None else self.recorder.track(key, lambda s=sequence: s.visual, sequence.due, CPU)
            for key, sequence, *_ in parts
        ]
        lengths = torch.tensor([end for *_, end in parts])
        queries = torch.tensor([end - begin for *_, begin, end in parts])
        assert not self.recorder.is_current(source)
        self.recorder.begin(source, tracked, queries.tolist(), lengths.tolist(), CPU)
        assert self.recorder.is_current(source)
        blocks = -(-int(lengths.max()) // BLOCK)
        table = torch.arange(len(parts) * blocks).view(len(parts), blocks)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), queries.cumsum(0)])
        for layer in range(layers):
            cache = torch.full((len(parts) * blocks, HEADS, BLOCK, HEAD_DIM), float("nan"))
            for row, (_, sequence, _, end) in enumerate(parts):
                for place in range(end):
                    cache[row * blocks + place // BLOCK, :, place % BLOCK] = sequence.key[layer, place]
            query = torch.cat([sequence.query[layer, begin:end] for _, sequence, begin, end in parts])
            self.recorder.add_layer(query, cache, table, lengths, starts, HEAD_DIM**-0.5)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def engine(recorder):
    return Engine(recorder)


def assert_taken(recorder, key, sequence, rows):
    taken = recorder.take([key])[0]
    assert taken.rows == len(rows)
    assert taken.mass.dtype == torch.float32
    torch.testing.assert_close(taken.mass, sequence.dense(rows), atol=1e-5, rtol=1e-4)
    assert taken.total == pytest.approx(len(rows) * LAYERS * HEADS, rel=1e-5)


def test_prompt_rows_are_those_after_the_last_visual_token(engine, recorder):
    sequence = Sequence(0, 12, range(2, 7))
    engine.step(("a", sequence, 0, 12))
    assert_taken(recorder, "a", sequence, range(7, 12))


def test_generated_rows_count_as_they_are_fed(engine, recorder):
    sequence = Sequence(1, 15, range(3, 9))
    engine.step(("a", sequence, 0, 11))
    for place in range(11, 15):
        engine.step(("a", sequence, place, place + 1))
    assert_taken(recorder, "a", sequence, range(9, 15))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 11])
def test_chunks_of_a_prompt_count_every_row_once(engine, recorder, chunk):
    sequence = Sequence(2, 20, range(1, 6))
    for begin in range(0, 20, chunk):
        engine.step(("a", sequence, begin, min(20, begin + chunk)))
    assert_taken(recorder, "a", sequence, range(6, 20))


def test_rows_before_the_last_of_several_images_do_not_count(engine, recorder):
    sequence = Sequence(3, 20, range(2, 5), due=range(12, 20))
    sequence.visual = torch.tensor([2, 3, 4, 10, 11])
    engine.step(("a", sequence, 0, 20))
    assert_taken(recorder, "a", sequence, range(12, 20))


def test_ragged_batch_of_prefill_chunk_decode_and_strangers(engine, recorder):
    a, b, c, stranger = (Sequence(i, 30, range(2, 4 + i)) for i in range(4))
    engine.step(("a", a, 0, 17), ("b", b, 0, 3), (None, stranger, 0, 9))
    engine.step((None, stranger, 9, 10), ("b", b, 3, 21), ("a", a, 17, 18))
    engine.step(("c", c, 0, 30), ("a", a, 18, 19), (None, stranger, 10, 11), ("b", b, 21, 22))
    assert_taken(recorder, "a", a, range(4, 19))
    assert_taken(recorder, "b", b, range(5, 22))
    assert_taken(recorder, "c", c, range(6, 30))
    assert len(recorder) == 0


@pytest.mark.parametrize("preempted_at", [9, 12, 14])
def test_recomputed_rows_count_once(engine, recorder, preempted_at):
    """After a preemption the prompt and the answer so far are computed again, in one go or in chunks."""
    sequence = Sequence(4, 18, range(2, 6))
    engine.step(("a", sequence, 0, 9))
    for place in range(9, preempted_at):
        engine.step(("a", sequence, place, place + 1))
    engine.step(("a", sequence, 0, 5))
    engine.step(("a", sequence, 5, preempted_at + 1))  # the last sampled token is fed with them
    for place in range(preempted_at + 1, 18):
        engine.step(("a", sequence, place, place + 1))
    assert_taken(recorder, "a", sequence, range(6, 18))


def test_missing_layer_shows_in_the_total(engine, recorder):
    sequence = Sequence(5, 12, range(2, 6))
    engine.step(("a", sequence, 0, 12), layers=LAYERS - 1)
    taken = recorder.take(["a"])[0]
    assert taken.total == pytest.approx(6 * (LAYERS - 1) * HEADS)


def test_rows_skipped_by_a_cache_hit_show_in_the_count(engine, recorder):
    sequence = Sequence(6, 20, range(2, 6))
    engine.step(("a", sequence, 16, 20))
    assert_taken(recorder, "a", sequence, range(16, 20))


def test_step_in_which_nothing_counts_calls_no_kernel(engine, recorder, monkeypatch):
    monkeypatch.setattr("vllm_sgl.guide.local.recorder.attention_mass", None)
    sequence = Sequence(7, 10, range(2, 10))
    engine.step(("a", sequence, 0, 6), (None, sequence, 0, 10))
    assert recorder.take(["a"])[0].rows == 0


def test_image_at_the_end_of_the_prompt_has_generated_rows_only(engine, recorder):
    sequence = Sequence(8, 12, range(2, 10))
    engine.step(("a", sequence, 0, 10))
    engine.step(("a", sequence, 10, 11))
    engine.step(("a", sequence, 11, 12))
    assert_taken(recorder, "a", sequence, range(10, 12))


# Visual tokens 2 to 6, prompt 0 to 10, fed answer 11 to 14.
CHOICES = {
    "prompt+generated": range(7, 15),
    "last_prompt+generated": range(10, 15),
    "prompt": range(7, 11),
    "last_prompt": range(10, 11),
    "generated": range(11, 15),
}


def watched(choice, seed=12):
    return Sequence(seed, 15, range(2, 7), due=query_rows(choice, 7, 11, 15))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 10, 11])
@pytest.mark.parametrize(("choice", "rows"), CHOICES.items())
def test_rows_of_every_choice(engine, recorder, choice, rows, chunk):
    sequence = watched(choice)
    for begin in range(0, 11, chunk):
        engine.step(("a", sequence, begin, min(11, begin + chunk)))
    for place in range(11, 15):
        engine.step(("a", sequence, place, place + 1))
    assert_taken(recorder, "a", sequence, rows)


@pytest.mark.parametrize("preempted_at", [4, 9, 11, 12, 14])
@pytest.mark.parametrize(("choice", "rows"), CHOICES.items())
def test_preemption_changes_nothing_of_any_choice(engine, recorder, choice, rows, preempted_at):
    sequence, other = watched(choice), watched(choice, seed=13)
    engine.step(("a", sequence, 0, min(11, preempted_at)), ("b", other, 0, 11))
    for place in range(11, preempted_at):
        engine.step(("a", sequence, place, place + 1))
    again = max(11, preempted_at + 1)  # the last sampled token is fed with the rest
    engine.step(("a", sequence, 0, 8))
    engine.step(("b", other, 11, 12), ("a", sequence, 8, again))
    for place in range(again, 15):
        engine.step(("a", sequence, place, place + 1))
    assert_taken(recorder, "a", sequence, rows)


@pytest.mark.parametrize("chunk", [4, 10, 11])
@pytest.mark.parametrize(("choice", "rows"), CHOICES.items())
def test_answer_of_one_token_leaves_prompt_rows_or_the_last_of_them(engine, recorder, choice, rows, chunk):
    sequence = watched(choice)
    for begin in range(0, 11, chunk):
        engine.step(("a", sequence, begin, min(11, begin + chunk)))
    expected = range(10, 11) if choice == "generated" else range(rows.start, 11)
    assert_taken(recorder, "a", sequence, expected)


@pytest.mark.parametrize("answer", [0, 2])
@pytest.mark.parametrize("choice", CHOICES)
def test_prompt_that_ends_in_an_image_has_its_last_row(engine, recorder, choice, answer):
    sequence = Sequence(14, 10, range(2, 8), due=query_rows(choice, 8, 8, 10))
    engine.step(("a", sequence, 0, 5))
    engine.step(("a", sequence, 5, 8))
    for place in range(8, 8 + answer):
        engine.step(("a", sequence, place, place + 1))
    generated, last = range(8, 10), range(7, 8)
    both = {"last_prompt+generated": range(7, 10), "prompt": last, "last_prompt": last}
    assert_taken(recorder, "a", sequence, both.get(choice, generated) if answer else last)


def test_choices_share_a_batch(engine, recorder):
    sequences = {choice: watched(choice, seed) for seed, choice in enumerate(CHOICES)}
    for begin, end in ((0, 9), (9, 11), *((place, place + 1) for place in range(11, 15))):
        engine.step(*((choice, sequence, begin, end) for choice, sequence in sequences.items()))
    for choice, sequence in sequences.items():
        assert_taken(recorder, choice, sequence, CHOICES[choice])


def test_rows_past_the_last_that_counts_show_in_the_total(engine, recorder):
    """vLLM never computes the last prompt row together with generated ones; if it did, it must show."""
    sequence = watched("prompt")
    engine.step(("a", sequence, 0, 13))
    assert recorder.take(["a"])[0].total == pytest.approx(6 * LAYERS * HEADS, rel=1e-5)


def test_unknown_key_is_none_and_a_key_is_handed_out_once(engine, recorder):
    sequence = Sequence(9, 8, range(1, 3))
    engine.step(("a", sequence, 0, 8))
    assert recorder.take(["b"])[0] is None
    assert recorder.take(["a"])[0] is not None
    assert recorder.take(["a"])[0] is None


def test_taking_one_request_in_the_middle_of_a_batch_leaves_the_others(engine, recorder):
    a, b = Sequence(10, 14, range(1, 4)), Sequence(11, 14, range(2, 8))
    engine.step(("a", a, 0, 10), ("b", b, 0, 12))
    assert_taken(recorder, "a", a, range(4, 10))
    engine.step(("b", b, 12, 13))
    assert_taken(recorder, "b", b, range(8, 13))


def test_a_request_sees_its_visual_tokens_once(recorder):
    asked = []

    def visual():
        asked.append(1)
        return torch.tensor([1, 2])

    first = recorder.track("a", visual, range(3, 9), CPU)
    assert recorder.track("a", visual, range(3, 9), CPU) is first
    assert asked == [1]


def test_beyond_capacity_the_longest_untouched_is_forgotten(engine):
    recorder = engine.recorder = Recorder(capacity=2)
    sequences = {name: Sequence(i, 12, range(1, 4)) for i, name in enumerate("abc")}
    engine.step(("a", sequences["a"], 0, 10))
    engine.step(("b", sequences["b"], 0, 10))
    engine.step(("a", sequences["a"], 10, 11))
    engine.step(("c", sequences["c"], 0, 10))
    assert len(recorder) == 2
    assert recorder.take(["b"])[0] is None
    assert_taken(recorder, "a", sequences["a"], range(4, 11))
    assert_taken(recorder, "c", sequences["c"], range(4, 10))


def test_layer_without_a_step_is_refused(recorder):
    with pytest.raises(AssertionError, match="before begin"):
        recorder.add_layer(None, None, None, None, None, 1.0)


def test_many_requests_are_handed_out_at_once():
    """Each its own, in the order of the question, whatever else was asked for."""
    recorder = Recorder()
    device = torch.device("cpu")
    for number, key in enumerate("abc"):
        entry = recorder.track(key, lambda n=number: torch.arange(n + 1), range(5, 6), device)
        entry.mass += number
        entry.total += 10 * number
        entry.rows = number
    c, unknown, a = recorder.take(["c", "x", "a"])
    assert unknown is None
    assert (c.mass.tolist(), c.rows, c.total) == ([2.0] * 3, 2, 20.0)
    assert (a.mass.tolist(), a.rows, a.total, len(recorder)) == ([0.0], 0, 0.0, 1)
