"""Classify pictures with the demonstration model that ships with fusedx.

    python examples/quickstart.py [PICTURE ...]
"""

import sys

import fusedx
from fusedx.demo import IMAGES, MODEL

model = fusedx.load(MODEL)
for path in sys.argv[1:] or sorted(IMAGES.glob("*.jpg")):
    prediction = model.classify(path, draws=8)
    print(f"{prediction.source}: {prediction.label}, {prediction.stability:.0%} of {prediction.draws} draws agree")
