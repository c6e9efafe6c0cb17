if __name__ != "fusedx.engine": raise ImportError("this folder is the package fusedx.engine: put python/ on the path and `import fusedx.engine`")  # noqa: E501, E701
# How a prediction is computed.  Imports from fusedx.kernels and third parties only; never from the rest of fusedx.
