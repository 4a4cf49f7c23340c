"""Frozen nets and models: name -> loader and the weights it needs.

To add one: an adapter in this folder, and a line here.

A loader takes {weights id: local file} and returns an object of `models/perception/interfaces.py`; the
objects are made once in each worker process, and none need survive pickling.
"""

from __future__ import annotations

from typing import NamedTuple


class Net(NamedTuple):
    loader: str
    """"module:function" of (weights: Mapping[str, Path]) -> object."""
    weights: tuple[str, ...] = ()
    """Ids in the weights registry."""
    gpu: bool = False
    """Runs on the GPU where there is one."""


NETS: dict[str, Net] = {
    "analytic_head": Net("models.perception.morphable:load_analytic"),
    "dlib_hog": Net("models.perception.dlib_faces:load_hog"),
    "dlib_ladder": Net("models.perception.dlib_faces:load_ladder", ("dlib_mmod",)),
    "dlib68": Net("models.perception.dlib_faces:load_landmarks", ("dlib_sp68",)),
    "dlib68_precise": Net("models.perception.dlib_faces:load_precise_landmarks", ("dlib_sp68",)),
}
