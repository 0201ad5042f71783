"""The shapes, by name. A new one is a file here with a class like the others, and a line in `SHAPES`."""

from .base import Amount, Case, Lane, Request, Shape
from .chats import Chats
from .images import SeveralImages
from .long_answers import LongAnswers
from .mixed_sizes import MixedSizes
from .open_loop import OpenLoop
from .questions import Questions
from .same_request import SameRequest
from .streams import Streams
from .text_among_images import TextAmongImages
from .video import Videos

__all__ = ["SHAPES", "Amount", "Case", "Lane", "Request", "Shape"]

SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Chats(),
        Questions(),
        SameRequest(),
        LongAnswers(),
        TextAmongImages(),
        SeveralImages(),
        Videos(),
        Streams(),
        OpenLoop(),
        MixedSizes(),
    )
}
