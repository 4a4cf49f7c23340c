"""What can go wrong with a store and its files; pipelines/errors.py says what each class means to a user.

Each takes one message, so that it survives pickling between processes.
"""

from __future__ import annotations


class InvalidInput(Exception):
    """A name, URI or file that a user handed in and that cannot be used as it is."""


class StoreError(Exception):
    """The store cannot be used: full, read-only, without permission, or gone. Trying again does not help."""


class StoreUnreachable(Exception):
    """The store did not answer, or broke off; it may answer later."""


class DamagedFile(Exception):
    """A published file is not what its record says it is: cut short, garbled, or of other bytes."""
