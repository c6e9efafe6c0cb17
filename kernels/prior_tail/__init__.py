"""Prior tail: normalise the saliency map, choose the regions, gather their tiles."""

from fusedx.kernels.prior_tail.reference import gather_tiles, region_scores, select_regions

__all__ = ["gather_tiles", "region_scores", "select_regions"]
