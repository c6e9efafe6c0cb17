"""Region selection of DiffMIC's prior encoder, after the globally-aware patch selection of arXiv 2002.07613.

The published window is one cell of the 7x7 saliency map and each cell is one 32x32 tile of the 224x224 image, so choosing
windows greedily is a stable descending sort of the cells, and cropping is a gather of tiles.
"""

from __future__ import annotations

import numpy as np


def region_scores(saliency: np.ndarray) -> np.ndarray:
    """[B,C,H,W] -> [B,H*W]: each class map scaled to [0,1] by its own minimum and maximum, summed over classes.

    A class map of zero range is 0/0 as published; here its scaled map is zero.
    """
    low = saliency.min(axis=(2, 3), keepdims=True)
    span = saliency.max(axis=(2, 3), keepdims=True) - low
    scaled = (saliency - low) / np.where(span > 0, span, 1)
    return scaled.sum(axis=1).reshape(saliency.shape[0], -1)


def select_regions(scores: np.ndarray, count: int = 6) -> np.ndarray:
    """[B,N] -> int64 [B,count]: the cells of largest positive score, in descending order, ties to the lowest index.

    When fewer than ``count`` cells are positive the rest are cell 0, as the published greedy search returns.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count].astype(np.int64)
    return np.where(np.take_along_axis(scores, order, axis=1) > 0, order, 0)


def gather_tiles(image: np.ndarray, cells: np.ndarray, grid: int = 7) -> np.ndarray:
    """[B,3,S,S], int64 [B,K] -> [B,K,S/grid,S/grid]: channel 0 of the normalised image, one tile a chosen cell."""
    batch, _, size, _ = image.shape
    tile = size // grid
    tiles = image[:, 0].reshape(batch, grid, tile, grid, tile).swapaxes(2, 3).reshape(batch, grid * grid, tile, tile)
    return np.take_along_axis(tiles, cells[:, :, None, None], axis=1)
