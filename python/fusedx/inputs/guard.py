"""Turns whatever a decoder raises into an InputError, so that nothing else ever leaves fusedx.inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fusedx.engine.errors import InputError


@contextmanager
def decoding(name: str, *, quote: bool) -> Iterator[None]:
    """Map MemoryError to "too_large" and every other Exception to "corrupt", naming ``name``.

    ``quote`` says whether the decoder's own words may be shown.  They may not for DICOM: pydicom quotes element values,
    which can be a patient's name, and for the same reason the original exception is not kept as the cause.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError("too_large", f"{name}: not enough memory to decode it") from None
    except Exception as error:
        words = " ".join(str(error).split())[:200] if quote else ""
        detail = f"{type(error).__name__}: {words}" if words else type(error).__name__
        if "decoder" in words and "not available" in words:
            raise InputError("missing_decoder", f"{name}: this Pillow was built without a decoder that it needs ({words})") from None
        if words.lower().startswith(("unsupported", "unknown")):
            raise InputError("unsupported", f"{name}: a kind that Pillow does not read ({detail})") from None
        raise InputError("corrupt", f"{name}: truncated or damaged ({detail})") from None
