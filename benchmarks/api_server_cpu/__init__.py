"""CPU time of the process that serves HTTP, per request about a JPEG of 13 tiles, and who spends it.

    python -m benchmarks.api_server_cpu [--requests N] [--rounds N] [--out FILE]

``vllm serve`` of a large model that costs next to nothing but takes real tiles (448 pixels, 256 tokens,
twelve and a thumbnail), plain and with SGL. What the engines' processes do is not counted, only what goes
through the one that all requests share. Each round asks every setting in turn; figures are medians over
rounds. Replies must report what their settings say, or there is no figure.

* **All of it** is the process's own CPU time, as the system counts it, less that of an idle process.
* **Parts** are the CPU time of the thread that runs them, measured in the server by wrapping functions
  (``clocks.py``), each without the parts inside it.
* **ZeroMQ** is its threads' CPU time: they copy what is sent to the engines into sockets.
* **The rest** is all else: HTTP, JSON, chat template and tokens, sampling parameters, the event loop.
"""
