"""The explanation picture: what the network saw, where it looked, what it says and how it got there, on one page.

    from fusedx.explain import explain

    explain(model, "fundus.png").save("fundus-explained.png")

Drawn with Pillow alone.  ``evidence`` gathers every number from the model; ``page`` and the panels beside it only draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from PIL import Image

from fusedx.explain.evidence import collect
from fusedx.explain.page import draw_page

if TYPE_CHECKING:
    from fusedx.model import Model, Settings, Source

__all__ = ["explain"]


def explain(model: Model, source: Source, **sampling: Unpack[Settings]) -> Image.Image:
    """Draw the explanation of one picture, RGB, 1600 pixels wide.

    source and the settings of sampling: as for :meth:`fusedx.Model.classify`, which gives the numbers shown.  With several draws
    the chain that is drawn is the first.  The same model, picture and settings give the same pixels.

    Raises what ``classify`` raises; FusedxError if the picture changed between two reads, or if the drawn chain does not end in the
    scores of ``classify``.
    """
    return draw_page(collect(model, source, **sampling)).finish()
