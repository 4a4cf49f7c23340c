"""A few frames of which every codec and every scaling has something to do."""

import numpy as np


def moving_square(count: int = 6, size: int = 64) -> np.ndarray:
    """(count,size,size,3) uint8: a bright square walking over a gradient."""
    ramp = np.linspace(20, 200, size).astype(np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (count, size, size, 3)).copy()
    for i in range(count):
        frames[i, 10:30, 4 * i : 4 * i + 20] = (240, 60, 30)
    return frames
