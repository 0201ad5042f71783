"""What others do without a small model: visual tokens chosen or merged, by the large model in transformers.

* ``divprune.py``: a set that is as diverse as can be; the same for every question.
* ``cdpruner.py``: diverse and relevant to the question, a determinantal point process.
* ``tome.py``: similar tokens merged inside the vision encoder.
* FastV's ranking is in ``tools/internvl_reference/fastv.py``.
* ``cost.py``: what each costs.

Both sets grow greedily, token by token, so an order of all tokens holds the sets of every size: that is how
they fit where a ranking is asked for.
"""
