"""A family of clips in memory (tests/train/conftest.py)."""

from tests.train.conftest import family

__all__ = ["family"]
