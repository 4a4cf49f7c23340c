"""The files and models of the tests of `animate`, for its command."""

from tests.animate.conftest import (
    bust,
    checkpoint,
    face,
    headgan_folder,
    headgan_state,
    moving,
    moving_bust,
    source,
    talks,
    videos,
)  # fmt: skip

__all__ = [
    "bust", "checkpoint", "face", "headgan_folder", "headgan_state", "moving", "moving_bust", "source",
    "talks", "videos",
]  # fmt: skip
