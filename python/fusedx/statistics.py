"""What a share of so many pictures says about all pictures like them."""

from __future__ import annotations

import math

#: Of a standard normal variable: 2.5 % lie above.
Z95 = 1.959963984540054


def wilson(events: int, n: int) -> tuple[float, float]:
    """95 % interval of a probability after ``events`` in ``n`` independent trials (Wilson, JASA 22, 1927)."""
    if not 0 <= events <= n or n < 1:
        raise ValueError(f"{events} events in {n} trials")
    share, z2 = events / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if events == 0 else middle - half), (1.0 if events == n else middle + half)
