"""The fields that travel on an image or video of a prompt, from the rewriter to the model.

They are vLLM's own kind of tensors, batched over items and kept on the CPU. vLLM batches items with the
same fields.
"""

#: uint8 [16]: names the item, whatever its mask, so that its vision features are reused.
ITEM = "sgl_item"
#: int64 [t]: ascending numbers of the tiles whose pixels are there; only where tiles are encoded one by one.
TILES = "sgl_tiles"
#: int64 scalar: visual tokens of what is there.
ROWS = "sgl_rows"
#: int64 [k]: ascending indices of the kept visual tokens among those of what is there.
KEPT = "sgl_kept"
#: int64 [length]: where each remaining position of the placeholder was inside the unpruned one.
PLACES = "sgl_places"
#: int64 scalar: how long the unpruned placeholder was.
LENGTH = "sgl_length"

#: int64 scalar: of late tokens, which stand in front of a later turn's question, the number of their item in
#: prompt order. Other items do not have it.
OF = "sgl_of"

#: All of them, for code that removes them again.
FIELDS = (ITEM, TILES, ROWS, KEPT, PLACES, LENGTH, OF)
