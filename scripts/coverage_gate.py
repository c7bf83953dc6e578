"""Fails where the tests cover too little: reads the data of coverage.py in the current folder.

python scripts/coverage_gate.py   after   pytest --cov
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

BOUNDS = {"nr_tracking/": 90.0, "nr_tracking/ros/": 95.0}
"""Least share of lines, in percent, that tests run below a folder."""


def shares(files: dict[str, dict[str, dict[str, int]]]) -> dict[str, float]:
    """Covered lines in percent for each folder of :data:`BOUNDS`, from the ``files`` of a JSON report."""
    result = {}
    for folder in BOUNDS:
        totals = [each["summary"] for name, each in files.items() if name.replace("\\", "/").startswith(folder)]
        lines = sum(each["num_statements"] for each in totals)
        result[folder] = 100.0 * sum(each["covered_lines"] for each in totals) / lines if lines else 0.0
    return result


def main() -> int:
    """Print the shares; 1 where one is below its bound."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(report)], check=True)
        found = shares(json.loads(report.read_text())["files"])
    for folder, share in found.items():
        told = "" if share >= BOUNDS[folder] else f", below the {BOUNDS[folder]:.0f} % that are asked for"
        print(f"{folder} {share:.1f} % of lines covered{told}")
    return int(any(share < BOUNDS[folder] for folder, share in found.items()))


if __name__ == "__main__":
    sys.exit(main())
