"""Every question under every setting: answers, decisions, kept tokens, times."""

import statistics
import textwrap
from typing import Any

from vllm_sgl.commands.calibrate.metrics import exact_match

from .asker import Asker
from .picture_questions import PictureQuestion
from .shipped import SETTINGS

REPEATS = 5

_COLUMNS = "{:41} {:11} {:16} {:8} {:8} {:>10} {:>5} {:>6}"
_HEADINGS = ("question", "setting", "answer", "right?", "decision", "kept / all", "score", "ms")


def ask_everything(asker: Asker, questions: list[PictureQuestion], warm_up: PictureQuestion) -> None:
    """Print a table of every question under every setting, and a summary."""
    for _, options in SETTINGS:
        asker.ask(warm_up, options)
    print(_COLUMNS.format(*_HEADINGS))
    right: dict[str, list[bool]] = {name: [] for name, _ in SETTINGS}
    times: dict[str, list[float]] = {name: [] for name, _ in SETTINGS}
    for question in questions:
        found = [[asker.ask(question, options) for _, options in SETTINGS] for _ in range(REPEATS)]
        for row, (name, _) in enumerate(SETTINGS):
            reply = found[0][row][0]
            seconds = statistics.median(repeat[row][1] for repeat in found)
            times[name].append(seconds)
            if question.answer is not None:
                right[name].append(exact_match(reply.choices[0].message.content, [question.answer]) == 1)
            _print_row(question, row, reply, seconds)
    print()
    for name, _ in SETTINGS:
        share = f"{sum(right[name])} of {len(right[name])} right, " if right[name] else ""
        print(f"{name:11} {share}median {1000 * statistics.median(times[name]):.0f} ms")
    print(
        f"ms: median of {REPEATS} requests, one at a time, settings in turn. Every request names its images "
        "anew, so that no cache\nanswers for the work of an earlier one."
    )


def _print_row(question: PictureQuestion, row: int, reply: Any, seconds: float) -> None:
    answer, sgl = reply.choices[0].message.content, reply.sgl
    verdict = ""
    if question.answer is not None:
        verdict = "yes" if exact_match(answer, [question.answer]) else f"no: {question.answer}"
    cells = (
        textwrap.shorten(question.text, 41, placeholder=" ...") if row == 0 else "",
        SETTINGS[row][0],
        textwrap.shorten(answer, 16, placeholder=" ...") or "(empty)",
        verdict,
        sgl["decision"],
        f"{sgl['kept_tokens']} / {sgl['visual_tokens']}",
        "-" if sgl["score"] is None else f"{sgl['score']:.2f}",
        f"{1000 * seconds:.0f}",
    )
    print(_COLUMNS.format(*cells), flush=True)
