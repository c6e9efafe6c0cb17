"""The one tolerance table.  Widening a row is a reviewed decision with its reason beside it."""

#: (device, dtype) -> relative error, a ratio of Euclidean norms, against the golden arrays of the original authors' code.
GOLDEN = {
    ("cpu", "float64"): 1e-9,
    ("cpu", "float32"): 1e-5,
}
