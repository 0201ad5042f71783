"""The table of docs/deploying.md says what the plan says."""

from pathlib import Path

from tests.memory import plans, true_sizes

DOCS = Path(__file__).parents[2] / "docs" / "deploying.md"


def test_the_table_is_what_the_plan_says():
    lines = DOCS.read_text().splitlines()
    begin = lines.index(plans.HEAD) + 2
    rows = plans.rows()
    assert lines[begin : begin + len(rows)] == rows, "python -m tests.memory.plans prints the table"
    by_name = {row.split("|")[1].strip(): row.split("|")[2:-1] for row in rows}
    # Experts in one tensor are quantised while they are loaded; a hybrid fits at its own context.
    assert by_name["Qwen3-VL-30B-A3B, --quantization fp8"][0].strip() == "30.2 GB"
    assert by_name["Qwen3.5-27B bf16"][5].strip().startswith("3.0")


def test_weights_are_what_checkpoints_store():
    dense = true_sizes.qwen3_vl()
    sizes = {
        k: true_sizes.stored_bytes(true_sizes.decoder(dense, k)) for k in ("bf16", *true_sizes.QUANTISED)
    }
    assert 64e9 < sizes["bf16"] < 67e9
    assert all(18e9 < sizes[kind] < 21e9 for kind in ("awq", "gptq", "nvfp4", "w4a16"))
    assert all(33e9 < sizes[kind] < 35e9 for kind in ("fp8", "w8a8"))
