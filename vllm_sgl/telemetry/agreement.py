"""Whether two answers say the same. Pure: strings only."""

import re
from collections.abc import Sequence

# Between digits a dot or a colon carries meaning (3.5, 17:30); all other punctuation does not.
_PUNCTUATION = re.compile(r"(?<!\d)[.:]|[.:](?!\d)|[^\w\s.:]|_")


def normalise(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join(_PUNCTUATION.sub("", text.lower()).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer equals any reference after :func:`normalise`, else 0."""
    return float(normalise(answer) in {normalise(reference) for reference in references})
