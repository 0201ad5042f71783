"""Plain vLLM against SGL by the shape of traffic: chats, many questions about one image, open-loop load, ...

    python -m benchmarks.shapes [--shapes chats,questions,...] [--settings "35% tiles,..."] [--out DIR]

A load test about a new image per request (`benchmarks.serve`) says nothing of a second turn, which plain
vLLM answers from its prefix cache. Each shape here is one kind of traffic, a file of its own in `traffic/`;
it says which requests are sent when, and nothing else. The same requests go to plain vLLM and to every
setting of SGL in turn, about images that none of the servers has seen, and right answers are counted beside
the seconds.

The pair is the sign readers, widened to the proportions of a 26B with a 2B (`tools/sign_reading/widen.py`).
All servers run the same process layout, threads, allocator and block size; all are up at once and one is
asked at a time.
"""
