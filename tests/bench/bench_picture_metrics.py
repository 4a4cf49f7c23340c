"""How long the metrics of pictures take for a frame of 256 px, on one core: at most 10 ms together.

Beside each the time in which the memory could be read and written that a metric cannot do without: both
frames once, as bytes. SSIM is bound by arithmetic (four means over windows and some twenty steps over
maps, in float64), not by that.
"""

import time

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pipelines.eval.metrics.l1 import l1_per_frame
from pipelines.eval.metrics.ms_ssim import ms_ssim_per_frame
from pipelines.eval.metrics.psnr import psnr_per_frame
from pipelines.eval.metrics.ssim import GAUSSIAN_11, ssim_per_frame

pytestmark = pytest.mark.bench

FRAMES, SIZE, REPEATS = 8, 256, 20
MAX_MILLISECONDS = 10


def milliseconds(work) -> float:
    """Of processor time, the shortest of some runs: what else the machine does counts for little."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return 1000 * min(taken)


def test_pictures_are_compared_in_10_ms_a_frame():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            large = np.zeros(2**26, np.uint8)
            read = milliseconds(large.copy) / (2 * large.nbytes)  # ms a byte
            floor = read * 2 * first[0].nbytes
            image, taps = first[0].astype(np.float64), np.array(GAUSSIAN_11.taps)
            windows = 4 * milliseconds(lambda: cv2.sepFilter2D(image, cv2.CV_64F, taps, taps))
            spent = {}
            for name, compare in (
                ("l1", l1_per_frame), ("psnr", psnr_per_frame), ("ssim", ssim_per_frame),
                ("ms_ssim", ms_ssim_per_frame),
            ):  # fmt: skip
                spent[name] = milliseconds(lambda compare=compare: compare(first, second)) / FRAMES
    finally:
        cv2.setNumThreads(threads)
    for name, taken in spent.items():
        print(f"{name}: {taken:.2f} ms a frame of {SIZE} px, {taken / floor:.0f} times its memory traffic")
    print(f"memory: {floor:.3f} ms a frame; four windowed means of SSIM: {windows:.2f} ms")
    together = spent["l1"] + spent["psnr"] + spent["ssim"]
    print(f"l1 + psnr + ssim: {together:.2f} ms, of at most {MAX_MILLISECONDS}")
    assert together <= MAX_MILLISECONDS
