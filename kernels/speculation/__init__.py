"""What the parallel sampler does between two sweeps: keep what was evaluated, move the fronts, guess what to evaluate next."""

#: The steps ahead of its front that a chain guesses at, in windows: some of them hold what they need already.
AHEAD = 2
