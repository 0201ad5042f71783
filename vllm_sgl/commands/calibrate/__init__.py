"""``vllm-sgl calibrate``: the cheapest settings whose loss stays below a stated one, with a guarantee.

Questions, backends and stored answers are in :mod:`vllm_sgl.evaluate`. Here ``ways`` lists the settings to
ask under, ``asking`` asks, ``losses`` turns answers into arrays, ``choosing`` tests settings (Learn then
Test: in the order of ``sequence``, by the p-values of ``risk``), and ``report`` and ``picture`` write the
result. A shadow server's log (``shadow_log``) enters at ``losses``.
"""
