if __name__ != "fusedx.kernels": raise ImportError("this folder is the package fusedx.kernels: put python/ on the path and `import fusedx.kernels`")  # noqa: E501, E701
# One folder an operation: the reference first, faster forms beside it under the same stem.  Imports nothing of fusedx but fusedx._native.
