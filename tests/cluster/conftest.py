"""A toy project on disk (tests/toy_project.py)."""

from tests.toy_project import new_project, project, ran

__all__ = ["new_project", "project", "ran"]
