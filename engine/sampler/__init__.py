"""The diffusion chain.  Each file is readable alone:

state.py         what a state is, v2's six points, what a run gives back
process.py       a chain's start and update
sequential.py    the loop
parallel.py      the same result, many steps at a time; held.py: what a chain knows so far; guess.py: what it bets on
newton.py        bets by Jacobian; affine.py: its recurrence, solved at once
plan.py, cost.py which of them, and how many rows a time; measured.py: this machine's times, measure.py: takes them
solvers.py       few steps in place of many: approximate
"""

from fusedx.engine.sampler.plan import SEQUENTIAL, Plan
from fusedx.engine.sampler.state import DISTANCE, POINT_COUNTS, WORK, Chains, Work, dense_map, dense_points, map_mean

__all__ = ["DISTANCE", "POINT_COUNTS", "SEQUENTIAL", "WORK", "Chains", "Plan", "Work", "dense_map", "dense_points", "map_mean"]
