"""What pruning and early exits do to answers, measured through the real serving path.

    python -m benchmarks.accuracy LARGE --small SMALL --data questions.jsonl --out DIR

Every question is answered under every setting: a method, a retention, positions, query rows. Answers go to
DIR/answers.jsonl as they come, so a run that was cut off goes on where it stopped, and a later run with more
settings or questions adds to it. DIR/accuracy.json has every figure; accuracy.png, variants.png (positions
and query rows of SGP) and exits.png show them. The data format is in ``data.py``, the cost model in
``cost.py``.
"""
