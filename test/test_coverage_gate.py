"""The bounds on coverage hold by folder and by line, not by file."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "scripts" / "coverage_gate.py"
gate = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("coverage_gate", FILE))
spec.loader.exec_module(gate)


def report(**covered):
    return {name: {"summary": {"num_statements": 100, "covered_lines": lines}} for name, lines in covered.items()}


@pytest.mark.parametrize(
    ("node", "core", "expected"),
    [
        (96, 90, {"nr_tracking/": 93.0, "nr_tracking/ros/": 96.0}),
        (80, 100, {"nr_tracking/": 90.0, "nr_tracking/ros/": 80.0}),
    ],
)
def test_shares_are_of_lines_below_each_folder(node, core, expected):
    files = report(**{"nr_tracking/ros/node.py": node, "nr_tracking/core.py": core, "elsewhere/other.py": 0})
    assert gate.shares(files) == pytest.approx(expected)
    assert gate.shares({}) == {"nr_tracking/": 0.0, "nr_tracking/ros/": 0.0}


@pytest.mark.parametrize(("node", "code"), [(96, 0), (94, 1)])
def test_too_little_coverage_fails(monkeypatch, capsys, node, code):
    def run(command, check):
        Path(command[-1]).write_text(__import__("json").dumps({"files": report(**{"nr_tracking/ros/node.py": node})}))

    monkeypatch.setattr(gate.subprocess, "run", run)
    assert gate.main() == code
    assert ("below the 95 %" in capsys.readouterr().out) == bool(code)
