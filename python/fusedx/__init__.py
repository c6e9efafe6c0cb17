"""fusedx runs diffusion-based medical image classifiers fast, exactly and reproducibly."""

__version__ = "0.1.0"
