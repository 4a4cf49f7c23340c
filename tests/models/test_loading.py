"""Which checkpoints a model takes for inference."""

import pytest

from models.checkpoint import Checkpoint
from models.errors import InvalidFile
from models.loading import load_reenactor
from models.spec import load_model_spec


@pytest.mark.parametrize("model", ["headgan", None])
def test_the_checkpoint_of_another_model_is_refused(model):
    other = Checkpoint(tensors={}, metadata={"model": model}, name="other.safetensors")
    with pytest.raises(InvalidFile, match=rf"other.safetensors holds {model}, not fsrt; give `--mod"):
        load_reenactor(load_model_spec("fsrt"), {"renderer": other})
