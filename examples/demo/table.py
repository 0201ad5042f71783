"""What was measured, as a table; and the answers that were wrong."""

import textwrap
from collections.abc import Iterator, Sequence

from .measuring import CLIENTS, Measured

_ROW = "{:19} {:>8} {:>9} {:>7}  {:>10} {:>7}  {:>5} {:>6} {:>7}"


def table(found: Sequence[Measured]) -> str:
    """The first of them is what the others are compared with."""
    plain = found[0]
    lines = [
        _ROW.format("", "right", "seconds a", "against", "requests/s", "against", "", "tokens", "tiles"),
        _ROW.format("", "", "question", "plain", f"{CLIENTS} at once", "plain", "exits", "kept", "encoded"),
    ]
    for one in found:
        cells = (
            one.name,
            one.right,
            f"{one.median:.2f}",
            f"{plain.median / one.median:.2f} x",
            f"{one.rate:.2f}",
            f"{one.rate / plain.rate:.2f} x",
            f"{one.exits:.0%}",
            f"{one.share('kept_tokens', 'visual_tokens'):.0%}",
            f"{one.share('encoded_tiles', 'tiles'):.0%}",
        )
        lines.append(_ROW.format(*cells))
    return "\n".join(lines)


def verdict(found: Sequence[Measured]) -> str:
    """Whether it paid in this run: the quickest setting, of those that answer as well where there are any."""
    plain = found[0]
    as_good = [one for one in found[1:] if one.score >= plain.score]
    best = min(as_good or found[1:], key=lambda one: one.median)
    ratio = plain.median / best.median
    if ratio <= 1:
        return (
            f"No setting was quicker than {plain.name} here: the small model costs more than it saves "
            "(docs/performance.md says when)."
        )
    right = f"; {best.right} right, {plain.name} {plain.right}" if best.known else ""
    return f"`{best.name}`: {ratio:.2f} times as quick as {plain.name} for a question asked alone{right}."


def wrong_answers(found: Sequence[Measured]) -> Iterator[str]:
    """A line for each question and setting with a wrong answer."""
    for one in found:
        for question, text in one.wrong.items():
            asked = textwrap.shorten(question.text, 50, placeholder=" ...")
            said = textwrap.shorten(text, 20, placeholder=" ...") or "(empty)"
            yield f"  wrong, {one.name}: {asked} {said!r}, should be {question.answer!r}"


def answers(found: Sequence[Measured]) -> Iterator[str]:
    """Where nobody knows the right answers: what was answered, a line for each picture and setting."""
    for one in found:
        shown = {}
        for question, reply in one.replies:
            shown.setdefault(question, reply)
        for question, reply in shown.items():
            text = textwrap.shorten(reply.choices[0].message.content, 60, placeholder=" ...") or "(empty)"
            sgl = reply.sgl
            score = "" if sgl["score"] is None else f", score {sgl['score']:.2f}"
            why = f" ({sgl['reason']})" if sgl["reason"] else ""
            names = ", ".join(path.name for path in question.images)
            yield f"  {names}, {one.name}: {text!r}, {sgl['decision']}{why}{score}"
