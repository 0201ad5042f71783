"""The reference for InternVL's chat format, where it was before there were others (``tools/reference``)."""

from tools.reference import Generated, Positions, QueryRows, confidence, reference, select
from tools.reference.chat_internvl import ChatInternVL as Reference

__all__ = ["Generated", "Positions", "QueryRows", "Reference", "confidence", "reference", "select"]
