"""Where compiled loops are kept, and what happens without a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twins import needs_loops

import nr_tracking
from nr_tracking.sensing.tensors import cpu_has_bfloat16

ROOT = Path(nr_tracking.__file__).parents[1]


def answer(script, **environment):
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=given, timeout=120)


def test_loops_can_be_switched_off():
    script = "from nr_tracking import loops; print(loops.compiled_loops('rays'))"
    assert answer(script, NR_TRACKING_LOOPS="0").stdout.strip() == "None"


def test_everything_is_there_without_numba(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('made for another numpy')")
    script = "from nr_tracking import loops; print(loops.are_compiled())"
    assert answer(script, PYTHONPATH=f"{tmp_path}:{ROOT}").stdout.strip() == "False"


@needs_loops
def test_compiling_is_announced_once_and_what_was_compiled_is_kept(tmp_path):
    script = "from nr_tracking.loops.compiler import clamped; print(clamped(1.0, 2.0, 3.0), clamped(9, 2, 3))"
    first, second = (answer(script, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stdout == second.stdout == "2.0 3\n"
    assert first.stderr.count("compiling loops") == 1 and not second.stderr
    assert all(folder.name.startswith("compiler-") for folder in tmp_path.iterdir())


@needs_loops
def test_a_change_in_what_a_loop_calls_is_noticed(monkeypatch, tmp_path):
    from nr_tracking.loops import compiler

    (tmp_path / "outer.py").write_text("from nr_tracking.loops.inner import part\n")
    monkeypatch.setattr(compiler, "_HERE", tmp_path)
    names = []
    for source in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (tmp_path / "inner.py").write_text(source)
        compiler._digest.cache_clear()
        names.append(compiler._kept_in("", "outer"))
    compiler._digest.cache_clear()
    assert names[0] == names[2] != names[1] and names[0].parent == tmp_path / "__pycache__"


@needs_loops
def test_a_place_that_cannot_be_written_to_is_passed_over(monkeypatch, tmp_path):
    from nr_tracking.loops import compiler

    monkeypatch.setattr(compiler.os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiler._kept_in("", "rays").parent == tmp_path / "nr_tracking"
    assert compiler._kept_in("/elsewhere", "rays").parent == Path("/elsewhere")


@needs_loops
def test_numbers_that_are_none_are_clamped_to_the_lower_end():
    from nr_tracking.loops.compiler import clamped

    assert [clamped(value, 0.0, 5.0) for value in (float("nan"), -1.0, 2.0, float("inf"))] == [0.0, 0.0, 2.0, 5.0]


@needs_loops
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_what_was_kept_and_cut_short_is_compiled_anew(tmp_path, kind, left):
    script = "from nr_tracking.loops.compiler import clamped; print(clamped(1.0, 2.0, 3.0), clamped(1.0, 2.0, 3.0))"
    answer(script, NUMBA_CACHE_DIR=str(tmp_path))
    for path in tmp_path.rglob(f"*.{kind}"):
        path.write_bytes(path.read_bytes()[:left])
    damaged, mended = (answer(script, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert damaged.stdout == mended.stdout == "2.0 2.0\n"
    assert "is damaged" in damaged.stderr and not mended.stderr


@needs_loops
def test_a_full_disk_costs_no_result(tmp_path):
    script = """
from numba.core import caching
def full(self, index): raise OSError(28, "No space left on device")
caching.IndexDataCacheFile._save_index = full
from nr_tracking.loops.compiler import clamped
print(clamped(1.0, 2.0, 3.0))
"""
    told = answer(script.replace("IndexDataCacheFile", cache_file()), NUMBA_CACHE_DIR=str(tmp_path))
    assert told.stdout == "2.0\n" and "cannot be kept: [Errno 28]" in told.stderr


def cache_file():
    from numba.core import caching

    return "IndexDataCacheFile" if hasattr(caching, "IndexDataCacheFile") else "_IndexDataCacheFile"


@needs_loops
def test_a_prepared_tracker_has_called_all_loops_that_a_frame_may_call():
    script = """
from importlib import import_module
from pkgutil import iter_modules
from nr_tracking import loops
from nr_tracking.config import load_config
from nr_tracking.ros.networks import build_tracker, prepare_loops
prepare_loops(build_tracker(load_config("base")))
for module in iter_modules(loops.__path__):
    for name, loop in vars(import_module(f"nr_tracking.loops.{module.name}")).items():
        own = getattr(getattr(loop, "py_func", None), "__module__", "") == f"nr_tracking.loops.{module.name}"
        called = own and module.name != "compiler" and loop.targetoptions.get("inline") != "always"
        if called and not name.startswith("_") and not loop.overloads:
            print(f"{module.name}.{name}")
"""
    seldom = {"parts.nearest_to", "rays.grid_of"}  # a subject that was chosen; `lite`
    by_loops = {"bends.bend_row", "bends.lower_heights", "extents.axes_of", "extents.moments"}
    by_loops |= {"percentiles.percentiles", "percentiles.sort"}
    training = {"normalisation.gradients", "quarters.gathered"}
    single = {"winograd.into_tiles", "winograd.from_tiles", "products.multiply", "products.vectors_of_panel"}
    elsewhere = single if cpu_has_bfloat16() else {"neighbours.gather"}
    assert set(answer(script).stdout.split()) <= seldom | by_loops | training | elsewhere
