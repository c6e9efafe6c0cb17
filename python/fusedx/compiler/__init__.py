"""Checkpoint -> compiled model.  The only part of fusedx that needs torch and onnx: ``pip install fusedx[compile]``."""

from fusedx.compiler.compile import CompileReport, compile_checkpoint

__all__ = ["CompileReport", "compile_checkpoint"]
