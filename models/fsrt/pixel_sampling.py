"""Which quarter of an image is rendered with gradient, and how it joins the rest to an image again.

Legend: B samples, side = that of the image in pixels, N = side**2 / 4, X channels of any kind. A lattice
holds every second pixel of every second row; the four of an image are numbered 2*dy + dx by their corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def split_pixel_lattices(pixels: Tensor) -> Tensor:
    """(side,side,X) -> (4,N,X): the four lattices, each row by row."""
    split = pixels.unflatten(1, (-1, 2)).unflatten(0, (-1, 2))  # (y,dy,x,dx,X)
    return split.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1)


def merge_pixel_lattices(parts: Tensor) -> Tensor:
    """(B,4,N,X), lattices in order -> (B,X,side,side)"""
    half = int(parts.shape[2] ** 0.5)
    split = parts.unflatten(2, (half, half)).unflatten(1, (2, 2))  # (B,dy,dx,y,x,X)
    return split.permute(0, 5, 3, 1, 4, 2).flatten(4, 5).flatten(2, 3)


class LatticePixels:
    """The quarter is one lattice of each sample. Parts: 0 = the quarter, 1-3 = the other lattices."""

    parts = 4

    def __init__(self, corner: Tensor, side: int) -> None:
        """corner (B,2) int64: dy, dx in {0,1}"""
        self.number = 2 * corner[:, 0] + corner[:, 1]
        self.count = [(side // 2) ** 2] * 4

    def flatten_pixel_grid(self, grid: Tensor) -> Tensor:
        """Pixel grid (side,side,2) -> (4,N,2), what `rows` picks from."""
        return split_pixel_lattices(grid)

    def gather_pixels(self, table: Tensor, part: int, at: slice = slice(None)) -> Tensor:
        """table (4,N,X), arranged -> (B,n,X): these rows of a part. Part k of lattice l is l XOR k."""
        # index_select: the gradient of table[...] is summed in no fixed order by several threads
        return table[:, at].index_select(0, self.number ^ part)

    def compose_image_from_parts(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts in order, (B,N,X) each -> (B,X,side,side)"""
        every = torch.stack(list(parts), dim=1)
        order = torch.arange(4, device=every.device) ^ self.number.unsqueeze(1)  # (B,4)
        return merge_pixel_lattices(every[torch.arange(len(every), device=every.device).unsqueeze(1), order])

    def quarter_to_half_size_image(self, part: Tensor) -> Tensor:
        """The quarter (B,N,X) as an image of half the side -> (B,X,side/2,side/2)"""
        half = int(part.shape[1] ** 0.5)
        return part.transpose(1, 2).unflatten(2, (half, half))

    def subsample_images(self, images: Tensor) -> Tensor:
        """The same pixels of given images: (B,X,side,side) -> (B,X,side/2,side/2)"""
        split = images.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B,X,y,dy,x,dx)
        split = split.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)  # (B,4,X,y,x)
        return split[torch.arange(len(split), device=split.device), self.number]


class RandomPixels:
    """The quarter is any N pixels of each sample. Parts: 0 = the quarter, 1 = the rest."""

    parts = 2

    def __init__(self, queries: Tensor, side: int) -> None:
        """queries (B,N) int64: flat pixel numbers, each at most once a sample"""
        is_query = queries.new_zeros((len(queries), side * side)).scatter(1, queries, 1)
        rest = is_query.argsort(dim=1, stable=True)[:, : side * side - queries.shape[1]]
        self.pixels, self.side = (queries, rest), side
        self.count = [part.shape[1] for part in self.pixels]

    def flatten_pixel_grid(self, grid: Tensor) -> Tensor:
        """Pixel grid (side,side,2) -> (side*side,2), what `rows` picks from."""
        return grid.flatten(0, 1)

    def gather_pixels(self, table: Tensor, part: int, at: slice = slice(None)) -> Tensor:
        """table (side*side,X) -> (B,n,X): these rows of a part."""
        return F.embedding(self.pixels[part][:, at], table)  # like index_select, sums in a fixed order

    def compose_image_from_parts(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts in order, (B,n,X) each -> (B,X,side,side)"""
        every, places = torch.cat(list(parts), dim=1), torch.cat(self.pixels, dim=1)
        places = places.unsqueeze(-1).expand_as(every)
        image = torch.zeros_like(every).scatter(1, places, every)
        return image.transpose(1, 2).unflatten(2, (self.side, self.side))
