"""A phase that starts from released weights: imported files, no phase before it."""

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file

from models.api import Loss
from models.errors import InvalidFile
from models.fsrt.phases import PHASES
from pipelines.cli.weights import export_to_released_layout
from pipelines.train.initial_weights import copy_weights_to_scratch
from pipelines.train.state import frozen_checkpoint_file_name
from storage import checkpoints, locations
from storage.errors import InvalidInput
from storage.files import Store, sha256_file
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.models.one_pass import with_update

DECODER = with_update(PHASES["warmup"], parts={"decoder": 1.0}).updates
FILES = {"fsrt_vox": "vox256.pt", "fsrt_kp": "kp_detector.pt"}


def put(store, weights_id, file, folder):
    convert_checkpoint_to_safetensors(file, folder / "converted.safetensors")
    record = {"sha256": sha256_file(folder / "converted.safetensors")}
    store.put(folder / "converted.safetensors", locations.weights_path(weights_id, "safetensors"))
    store.write_json(locations.weights_path(weights_id, "json"), record)


@pytest.fixture(scope="module")
def trained(make_lab):
    """A model that was trained here, and a store that holds its weights as if its authors had sent them."""
    lab = make_lab()
    lab.keypoints()
    out = lab.run(lab.context("warmup", steps=2)).out
    export_to_released_layout(out / "model.safetensors", lab.folder / "files")
    store = Store(str(lab.folder / "store"))
    for weights_id, name in FILES.items():
        put(store, weights_id, lab.folder / "files" / name, lab.folder)
    return out, store


@pytest.fixture
def imported(lab, trained):
    """Such weights in the store -> the folder of the model that they are of."""
    out, lab.store = trained
    return out


def test_a_phase_starts_from_released_weights(lab, imported):
    context = lab.context("warmup", init="weights.fsrt_vox", updates=DECODER, steps=2)
    lab.run(context)
    before = load_file(imported / "model.safetensors")
    after, about = checkpoints.load_checkpoint(context.out / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"decoder"}
    assert about["provenance"] == {"net": "fine-tuned from fsrt_vox", "kp_detector": "from fsrt_kp"}


def test_a_detector_that_was_released_replaces_the_first_phase(lab, imported):
    context = lab.run(lab.context("warmup", init="weights.fsrt_kp", steps=1))
    before = load_file(imported / "model.safetensors")
    after, about = checkpoints.load_checkpoint(context.out / "model.safetensors")
    frozen = [name for name in after if name.startswith("kp_detector.")]
    assert frozen
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert about["provenance"] == {"kp_detector": "from fsrt_kp"}


def test_a_phase_uses_released_weights_as_a_frozen_net_beside_its_own(lab, imported):
    context = lab.context("keypoints", uses={"teacher": "weights.fsrt_kp"})
    phase = context.config.fsrt.phases["keypoints"]
    copy_weights_to_scratch(context, "fsrt", phase)
    used = load_file(f"{context.scratch}/{frozen_checkpoint_file_name('teacher')}")
    expected = load_file(imported / "model.safetensors")
    assert used.keys() == {name for name in expected if name.startswith("kp_detector.")}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in used.items())


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("fsrt_vox", {"net": "fine-tuned from fsrt_vox", "kp_detector": "from fsrt_kp"}),
        ("fsrt_kp", {"kp_detector": "from fsrt_kp", "perceptual_net": "not used"}),
    ],
)
def test_a_released_net_had_its_perceptual_loss(lab, imported, start, told):
    context = lab.context(
        "perceptual",
        init=f"weights.{start}",
        resume_optimizers=False,
        steps=1,
        losses={"pixel": Loss(1.0)},
    )
    assert checkpoints.load_checkpoint(lab.run(context).out / "model.safetensors")[1]["provenance"] == told


def test_weights_of_another_architecture_stop_before_training(lab, imported):
    context = lab.context("warmup", init="weights.fsrt_vox")
    net = replace(context.config.fsrt.net, expression_size=12)
    context.config.fsrt = replace(context.config.fsrt, net=net)
    with pytest.raises(InvalidFile, match=r"do not fit fsrt\.net: .*expression_size 8 \(fsrt\.net: 12\)"):
        lab.run(context)
    assert all(step is None for step, _ in context.seen["metrics"])  # figures of the data, none of a step


def test_a_file_that_was_not_imported_is_said_with_the_way_to_get_it(lab, imported):
    with pytest.raises(InvalidInput, match=r"fomm_vox .* are missing: get vox-cpk\.pth\.tar"):
        lab.run(lab.context("warmup", init="weights.fsrt_vox_fomm"))
