"""What can be wrong with what a model is given; pipelines/errors.py says what each class means to a user.

Each takes one message, so that it survives pickling between processes.
"""

from __future__ import annotations


class InvalidSettings(Exception):
    """Settings that cannot work together, or that this machine or these weights cannot meet."""


class InvalidFile(Exception):
    """A checkpoint, face model or other file that is not what it was given as."""
