"""The parts of bench_gpu.py.  figures, timing and targets need no GPU and are tested without one."""
