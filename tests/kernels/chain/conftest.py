"""The chain kernel's tests share its emulator, which other folders use too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cuda_on_cpu"))
