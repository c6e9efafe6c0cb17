"""The thread pool where pools usually break: two callers, fork, settings, failures, exit."""

import ast
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module

pytestmark = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
PACKAGES = Path(__file__).resolve().parents[2] / "python"

WORK = """
import os, sys, threading
import numpy as np
from fusedx import _native
from fusedx.kernels import conditional_layer as layer
rng = np.random.default_rng(0)
weight = rng.standard_normal((1027, 700), np.float32)
panels = layer.pack(weight)
u = rng.standard_normal((5, 700), np.float32)
a = rng.standard_normal((1, 1027), np.float32)
def work():
    return layer.run(u, panels, a, a, np.zeros(5, np.int32)).tobytes()
"""


def python(code: str, light: bool = False, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(PACKAGES), **environment}
    before = "from fusedx import _native\n" if light else WORK
    return subprocess.run([sys.executable, "-c", before + code], env=env, capture_output=True, text=True, timeout=120)


def printed(code: str, light: bool = False, **environment: str) -> str:
    result = python(code, light, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("parts", [1, 2, 3, 64])
def test_every_part_runs_once(parts):
    for _ in range(50):
        assert all(native_module.native._pool_probe(parts))  # (a part that runs twice raises)


def test_a_part_belongs_to_one_worker_and_the_first_to_the_caller():
    code = "print(all(_native._pool_probe(4)[:3] == _native._pool_probe(3) for _ in range(200)), len(set(_native._pool_probe(4))), "\
           "_native._pool_probe(4)[0] == threading.get_native_id())"
    assert printed("import threading\n" + code, light=True, FUSEDX_THREADS="4") == "True 4 True"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_failing_part_is_reported_and_the_pool_lives_on(part):
    with pytest.raises(RuntimeError, match=f"part {part} failed as asked"):
        native_module.native._pool_probe(3, part)
    assert all(native_module.native._pool_probe(3))


@pytest.mark.parametrize("items, work, budget, shares", [
    (10, 1 << 30, 0, 5), (10, 1 << 30, 1, 1), (10, 1 << 30, 2, 2), (10, 1 << 30, 3, 3), (10, 1 << 30, 99, 5),
    (2, 1 << 30, 0, 2), (10, 1000, 0, 1), (0, 0, 0, 0),
])
def test_a_loop_is_cut_into_contiguous_shares_within_the_budget(items, work, budget, shares):
    """Of five threads; ten items in five shares."""
    code = f"print(sorted(_native._loop_probe({items}, {work}, {budget})))"
    cut = ast.literal_eval(printed(code, light=True, FUSEDX_THREADS="5"))
    assert len(cut) == shares and [i for begin, end in cut for i in range(begin, end)] == list(range(items))


@pytest.mark.parametrize("budget", [-1, -(1 << 31)])
def test_a_budget_below_one_thread_is_refused(budget):
    with pytest.raises(ValueError, match=f"^threads: expected at least 1, got {budget}$"):
        native_module.native._loop_probe(10, 1 << 30, budget)


def test_a_budget_ends_with_its_call_and_is_nobody_elses():
    code = """
found = []
def other(): found.append(len(_native._loop_probe(8, 1 << 30)))
for _ in range(20):
    thread = threading.Thread(target=other)
    thread.start(); _native._loop_probe(8, 1 << 30, 1); thread.join()
    found.append(len(_native._loop_probe(8, 1 << 30)))
print(set(found))
"""
    assert printed("import threading\n" + code, light=True, FUSEDX_THREADS="4") == "{4}"


def test_python_threads_at_once():
    rng = np.random.default_rng(0)
    weight, u = rng.standard_normal((1027, 700), np.float32), rng.standard_normal((5, 700), np.float32)
    a, t = rng.standard_normal((1, 1027), np.float32), np.zeros(5, np.int32)
    panels = layer.pack(weight)
    expected, wrong = layer.run(u, panels, a, a, t), []

    def work():
        for _ in range(40):
            if not np.array_equal(layer.run(u, panels, a, a, t), expected):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("threads", ["1", "2", "3", "5"])
def test_the_number_of_threads_is_obeyed_and_changes_no_bit(threads):
    code = "import hashlib; print(_native.threads(), hashlib.sha256(work()).hexdigest(), len(os.listdir('/proc/self/task')))"
    count, digest, tasks = printed(code, FUSEDX_THREADS=threads, OPENBLAS_NUM_THREADS="1").split()
    assert count == threads and int(tasks) == int(threads)
    assert digest == printed("import hashlib; print(hashlib.sha256(work()).hexdigest())", FUSEDX_THREADS="2")


def test_without_a_setting_the_affinity_mask_counts():
    code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); from fusedx import _native; print(_native.threads())"
    env = {**os.environ, "PYTHONPATH": str(PACKAGES), "FUSEDX_THREADS": ""}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "1", result.stderr
    affinity, quota = len(os.sched_getaffinity(0)), native_module.native._cpu_quota()
    assert printed("print(_native.threads())", FUSEDX_THREADS="") == str(min(affinity, math.ceil(quota)) if quota else affinity)


@pytest.mark.parametrize("groups, files, expected", [
    ("0::/\n", {}, 0),
    ("0::/\n", {"cpu.max": "max 100000\n"}, 0),
    ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n", "cpu.max": "200000 100000\n"}, 0.5),
    ("0::/host/path\n", {"cpu.max": "300000 100000\n"}, 3),
    ("4:memory:/x\n3:cpu,cpuacct:/docker/7\n0::/\n",
     {"cpu,cpuacct/docker/7/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/docker/7/cpu.cfs_period_us": "100000\n"}, 2.5),
    ("1:cpu:/docker/7\n", {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0),
    ("2:cpuacct:/x\nnonsense\n", {"cpu.max": "lots\n", "cpu/cpu.cfs_quota_us": "1\n"}, 0),
    (None, {"cpu.max": "100000 100000\n"}, 1),
])
def test_the_tightest_quota_of_the_container_counts(tmp_path, groups, files, expected):
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert native_module.native._cpu_quota(str(tmp_path)) == expected


@pytest.mark.parametrize("setting", ["0", "-1", "two", "1025", "2x", " 2", "99999999999999999999"])
def test_an_impossible_number_of_threads_is_an_error(setting):
    result = python("", FUSEDX_THREADS=setting)
    assert result.returncode == 1 and f"ValueError: FUSEDX_THREADS={setting}: expected a whole number" in result.stderr


def test_fork_gives_the_child_a_pool_of_its_own():
    code = """
expected = work()
for _ in range(3):
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        good = work() == expected and len(os.listdir('/proc/self/task')) == 2
        if grandchild:
            good = good and os.waitpid(grandchild, 0)[1] == 0
        os._exit(0 if good else 7)
    assert os.waitpid(child, 0)[1] == 0
    assert work() == expected
print('good')
"""
    assert printed(code, FUSEDX_THREADS="2", OPENBLAS_NUM_THREADS="1") == "good"


def test_fork_while_another_thread_uses_the_pool():
    code = """
import warnings; warnings.simplefilter('ignore')
expected, stop = work(), threading.Event()
def busy():
    while not stop.is_set(): work()
thread = threading.Thread(target=busy); thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0: os._exit(0 if work() == expected else 7)
    assert os.waitpid(child, 0)[1] == 0
stop.set(); thread.join(); print('good')
"""
    assert printed(code, FUSEDX_THREADS="2", OPENBLAS_NUM_THREADS="1") == "good"


@pytest.mark.parametrize("ending", [
    "", "sys.exit(0)", "threading.Thread(target=lambda: [work() for _ in range(200)], daemon=True).start()",
])
def test_exit_neither_hangs_nor_crashes(ending):
    printed(f"work()\n{ending}", FUSEDX_THREADS="4")


@pytest.mark.parametrize("setting, value, allowed", [
    ("FUSEDX_THREADS", "0", "expected a whole number from 1 to 1024"), ("FUSEDX_ISA", "sse9", "available: .*baseline"),
])
def test_a_bad_setting_is_refused_when_a_denoiser_is_made(setting, value, allowed):
    """By the call that asks for it, and as fusedx's own error by the backend, before it looks at any weight."""
    code = f"""
from fusedx.engine.backends.native import NativeChains
from fusedx.engine.errors import ConfigError
for _ in range(2):
    try: _native.{"threads" if setting == "FUSEDX_THREADS" else "isa"}()
    except ValueError as error: print(error)
try: NativeChains(None)
except ConfigError as error: print(error)
"""
    lines = printed(code, light=True, **{setting: value}).splitlines()
    assert len(lines) == 3 and len(set(lines)) == 1
    assert re.fullmatch(f"{setting}={value}.*{allowed}.*", lines[0])


@pytest.mark.parametrize("isa", native_module.native.isas() if native_module.native else ())
def test_the_environment_chooses_the_instruction_set(isa):
    assert printed("print(_native.isa())", FUSEDX_ISA=isa) == isa


def test_an_impossible_instruction_set_lists_what_is_available():
    result = python("work()", FUSEDX_ISA="sse9")
    assert "ValueError: FUSEDX_ISA=sse9 is not available on this machine; available: " in result.stderr and "baseline" in result.stderr
