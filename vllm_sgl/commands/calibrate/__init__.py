"""``vllm-sgl calibrate``: the cheapest settings whose loss stays below a stated one, with a guarantee.

A request goes ``data`` -> ``ways`` (how it is asked) -> ``backends`` -> ``lines`` (kept on disk) ->
``requests`` (what was lost, as arrays) -> ``choosing`` (Learn-then-Test: in the order of ``sequence``, by
the p-values of ``risk``) -> ``telling`` and ``picture``. A shadow server's log (``shadow``) enters at
``requests``.
"""
