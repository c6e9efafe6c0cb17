"""``fusedx calibrate``: how well fewer steps agree with the published chain on one's own pictures, and a temperature from their labels.

pictures.py     which pictures, and their labels
answers.py      what the model says of them, by every solver, from the same noise
curve.py        steps against agreement, beside what another seed would change
temperature.py  calibration error, and the temperature that fits
chart.py        the curve as a picture
report.py       all of it as files and text, and the temperature into the manifest
"""
