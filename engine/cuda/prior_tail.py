"""The region choice as one operator that torch.compile and CUDA graphs take as a whole."""

from __future__ import annotations

import torch

from fusedx.engine.manifest import GRID, IMAGE_SIZE, REGIONS

TILE = IMAGE_SIZE // GRID


@torch.library.custom_op("fusedx::prior_tail", mutates_args=())
def prior_tail(saliency: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """saliency float32 [B,C,7,7], image float32 [B,3,224,224] -> corners float32 [B,6,2] in pixels, tiles float32 [B*6,1,32,32]."""
    from fusedx.kernels.prior_tail import triton as kernel

    batch = len(saliency)
    cells = torch.empty(batch, REGIONS, dtype=torch.int64, device=saliency.device)
    tiles = torch.empty(batch, REGIONS, TILE, TILE, dtype=torch.float32, device=saliency.device)
    kernel.prior_tail(saliency.contiguous(), image.contiguous(), cells=cells, tiles=tiles)
    corners = torch.stack([cells // GRID, cells % GRID], dim=-1) * TILE
    return corners.to(torch.float32), tiles.view(batch * REGIONS, 1, TILE, TILE)


@prior_tail.register_fake
def _(saliency: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = len(saliency) * REGIONS
    return image.new_empty(len(saliency), REGIONS, 2), image.new_empty(rows, 1, TILE, TILE)
