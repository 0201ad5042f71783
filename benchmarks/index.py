"""The benchmarks, each with the question that it answers and where its last result is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """name: of the module below ``benchmarks``. result: a path below ``benchmarks/results``, a pattern where
    there are several, or nothing."""

    name: str
    question: str
    result: str = ""


INDEX = (
    Entry("serve", "how many requests does a server answer, and how fast, beside plain vLLM?", "serve-*"),
    Entry("shapes", "what do chats, known images, streams and open-loop load gain or lose?", "shapes-*"),
    Entry("accuracy", "are answers as good, by method and retention?", "accuracy-*"),
    Entry("crossed", "can a guide on fewer tiles, or of another family, guide as well?", "crossed-*"),
    Entry("memory", "how much memory does the second model take?", "memory-*"),
    Entry("api_server_cpu", "what spends CPU time in the process that serves HTTP?", "api-server-cpu.json"),
    Entry("kernels", "how fast are the kernels on this device?"),
    Entry("gpu_check", "does everything work on this GPU, and how fast at true size?"),
    Entry("calibration_splits", "does a calibration keep its promise?", "calibration-*"),
    Entry("compare", "is a result worse than an earlier one by more than the noise?"),
    Entry("true_size", "(writes a checkpoint of true size without weights)"),
)
