"""Throughput and latency under load: SGL against plain vLLM on the same machine, in the same run.

    python -m benchmarks.serve [--preset cpu|signs-26b|signs-38b|signs-78b|gpu] [--out DIR]

Plain ``vllm serve LARGE`` and an SGL server of the same LARGE are loaded by vLLM's own ``vllm bench serve``
(openai-chat, no picture that the server has seen) at 1 to 32 clients. Retention, exits and policy are a
request's own settings, so one SGL server is enough; another, of the small model alone, is there for its
component times, and as a control.

* **cpu, gpu**: random weights, pictures of 13 tiles of 256 tokens (five on a CPU); answers mean nothing.
* **signs-...**: the trained sign readers, widened until vision encoder, decoder and guide cost in the
  proportions of a real pair (``tools/sign_reading/widen.py``), on questions that they can answer. Accuracy
  stands beside every point, and controls beside SGL: the small model alone, random tokens without a guide,
  downsampled images. Every setting is asked the same questions.

* **Like for like.** On a CPU, SGL lays out its engines' processes and threads in another way than vLLM does.
  Plain vLLM is laid out like SGL (``benchmarks/support/process_layout.py``), and so is the small model's
  server; plain vLLM in its default layout is measured too, and is a column of its own.
* **First the answers.** Plain and never-pruning SGL must answer a fixed set alike, and every pruned request
  must report exactly max(1, floor(R * N)) kept tokens, or no more where its policy may keep fewer (``tiles``,
  whose open tiles may hold fewer), under load too. Otherwise no figure is printed.
* **Alternation.** In each round, and for each number of clients, every group of at most five settings stands
  between two runs of plain vLLM, and is divided by their mean. A figure is the median over rounds. Where two
  servers do not fit on the device, they take turns instead.
* **Exits.** Random weights have scores that mean nothing: the threshold is the median score of a few
  requests, so that about half exit. Readers have thresholds of their own. The measured share is reported.
* **Ideal** is T_plain / T_sgl of the cost model (``cost.py``), whose component times are measured on plain
  servers of either model (``components.py``), batched as the same number of clients batches them: no capture,
  no second engine. Vision is what the loads of each model alone take beyond that (``figures.under_load``).
  Efficiency = measured speed-up / ideal.
* **Noise** is estimated from the run itself (``figures.py``) and stored with every figure;
  ``python -m benchmarks.compare A B`` uses it.

``--again DIR`` measures nothing, and figures a written run anew.

DIR gets result.json (rewritten after every load, so that a run that is cut off leaves what it had) and
pictures: speed-up, efficiency, where time goes, and for readers accuracy over measured seconds per question.
"""
