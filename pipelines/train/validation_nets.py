"""The frozen nets that validation's figures need, in no key (pipelines/runs/session.py): loading computes
nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from storage.files import Store

MAX_REMEMBERED_FEATURES = 32
"""Of a feature on a set of pictures. Pictures of the data come again at every validation: at most six such
sets."""


class ValidationNets:
    """What frozen nets say of pictures (`validation_figures.PictureFeatures`). A net is loaded when it is
    first asked for and stays; what was said of the last pictures is remembered. Pickles as the place of the
    nets' weights."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._nets: dict[str, Mapping[str, Any] | None] = {}
        self._known: OrderedDict[tuple[str, bytes], Mapping[str, np.ndarray]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return (ValidationNets, (self.store,))

    def __call__(self, feature: str, pictures: np.ndarray) -> Mapping[str, np.ndarray] | None:
        """feature: a key of `validation_figures.FIGURE_FEATURES`; pictures (N,S,S,3) uint8 -> its fields,
        (N,...) each; None where the weights of one of its nets are missing."""
        from pipelines.train.validation_figures import FIGURE_FEATURES

        if (nets := self._load(feature)) is None:
            return None
        place = (feature, hashlib.sha256(pictures.tobytes()).digest())
        if place not in self._known:
            self._known[place] = FIGURE_FEATURES[feature](pictures, nets)
            while len(self._known) > MAX_REMEMBERED_FEATURES:
                self._known.popitem(last=False)
        self._known.move_to_end(place)
        return self._known[place]

    def _load(self, feature: str) -> Mapping[str, Any] | None:
        from pipelines.nets import load_nets
        from pipelines.train.validation_figures import figure_feature_nets

        if feature not in self._nets:
            names = figure_feature_nets(feature)
            found = load_nets(names, self.store, missing="skip")
            self._nets[feature] = found if len(found) == len(names) else None
        return self._nets[feature]
