"""Measurements as text: one run, or two side by side."""

from __future__ import annotations

from typing import Any

ORDER = (
    "decode", "subject", "tsdf", "rays", "network", "encode", "fuse", "decode coarse", "refine", "filter", "mesh",
    "patches", "deform", "tracks", "trace", "serialise",
)  # fmt: skip
"""The stages in the order in which a frame meets them."""


def bench_table(result: dict[str, Any]) -> str:
    """One run as lines of text."""
    lines = [
        f"preset {result['preset']} on {result['device']}, {result['threads']} threads, {result['frames']} frames",
        f"{result['frames_per_second']:8.2f} frames a second",
        f"{result['peak_memory_mb']:8.0f} MB at most",
    ]
    if "machine" in result:
        machine = result["machine"]
        rates = f"{machine['copy_gb_s']:.1f} GB/s copied, {machine['matrix_gflop_s']:.0f} GFLOP/s multiplied"
        lines += [f"the machine: {rates}", "ms a frame        p50     p95     p99   floor"]
    for stage in _ordered(result):
        times, floor = result["percentiles"].get(stage, {}), result.get("floors", {}).get(stage)
        cells = [f"{1000 * times[name]:8.1f}" if name in times else f"{'-':>8}" for name in ("p50", "p95", "p99")]
        lines.append(f"{stage:14}{''.join(cells)}{'' if floor is None else f'{1000 * floor:8.2f}'}")
    return "".join(f"{line}\n" for line in lines)


def comparison_table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Two runs side by side, with the ratio of the second to the first; above 1 is more of it, good or bad."""
    names = [f"{run['preset']} on {run['device']}" for run in (before, after)]
    lines = [f"{'':24}{names[0]:>16}{names[1]:>16}   ratio"]

    def row(name: str, first: float | None, second: float | None, form: str) -> None:
        cells = [f"{value:{form}}" if value is not None else "-" for value in (first, second)]
        ratio = f"{second / first:8.2f}" if first and second else f"{'-':>8}"
        lines.append(f"{name:24}{cells[0]:>16}{cells[1]:>16}{ratio}")

    row("frames a second", before["frames_per_second"], after["frames_per_second"], ".2f")
    row("MB at most", before["peak_memory_mb"], after["peak_memory_mb"], ".0f")
    for stage in dict.fromkeys((*_ordered(before), *_ordered(after))):
        first, second = (run["percentiles"].get(stage, {}).get("p50") for run in (before, after))
        row(f"{stage} p50 [s]", first, second, ".4f")
    return "".join(f"{line}\n" for line in lines)


def _ordered(result: dict[str, Any]) -> list[str]:
    """Stages that were measured, in their order; those that this file does not know come last."""
    known = [stage for stage in ORDER if result["percentiles"].get(stage)]
    return known + [stage for stage, values in result["percentiles"].items() if values and stage not in ORDER]
