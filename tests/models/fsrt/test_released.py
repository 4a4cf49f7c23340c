"""Released checkpoints (specification 11 and 16.10): read strictly, written back in the published layout.

The files are made here in the published format, of a net small enough for tests; one slow test has the
published size.
"""

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace
from torch import nn

from models.errors import InvalidFile, InvalidSettings
from models.fsrt.config import (
    AugmentConfig,
    DiscriminatorConfig,
    FsrtConfig,
    TrainingSampleConfig,
    full_architecture,
)
from models.fsrt.discriminator import Discriminator
from models.fsrt.network import Fsrt
from models.fsrt.phases import PHASES
from models.fsrt.released import (
    check_weights_match_id,
    export_released_format,
    infer_architecture,
    load_released,
    read_released_weights,
)
from models.fsrt.spec import RELEASED_WEIGHTS_INITS, SPEC
from models.loading import load_reenactor
from models.weights import find_third_party_weights
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.models.fsrt.architectures import SMALL_DECODER, metadata

DISCRIMINATOR = DiscriminatorConfig(size=64, width=2, blocks=2)
PARTS = ("encoder", "decoder", "expression_encoder")


@pytest.fixture
def section(nano) -> FsrtConfig:
    return FsrtConfig(net=nano, sampling=TrainingSampleConfig(queries=64), discriminator=DISCRIMINATOR)


def noise(net: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Its state in random numbers, running means and counters too."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor + seed
        for name, tensor in net.state_dict().items()
    }


@pytest.fixture
def trained(nano) -> dict[str, dict[str, torch.Tensor]]:
    """State by part, as phase `adversarial` leaves it."""
    whole = dict(Fsrt(nano).named_children())
    whole["discriminator"] = Discriminator(DISCRIMINATOR, nano.detector.keypoints)
    return {part: noise(net, i + 1) for i, (part, net) in enumerate(whole.items())}


def flat(parts: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}


def imported(folder, weights_id: str, content: object):
    """A publisher's file with this content, after its import."""
    torch.save(content, folder / f"{weights_id}.pt")
    target = folder / f"{weights_id}.safetensors"
    convert_checkpoint_to_safetensors(
        folder / f"{weights_id}.pt", target, drop_prefixes=find_third_party_weights(weights_id).drop_prefixes
    )
    return target


def of(parts, *names: str) -> dict[str, dict[str, torch.Tensor]]:
    return {name: parts[name] for name in names}


@pytest.fixture
def files(tmp_path, trained):
    return {
        "fsrt_vox": imported(tmp_path, "fsrt_vox", of(trained, *PARTS)),
        "fsrt_kp": imported(tmp_path, "fsrt_kp", trained["kp_detector"]),
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


# --- reading ------------------------------------------------------------------------------------------------
def test_both_files_make_one_net_under_our_names(files, trained, section):
    tensors, provenance = read_released_weights(files, section)
    assert same(tensors, flat(of(trained, *PARTS, "kp_detector")))
    assert provenance == {"net": "from fsrt_vox", "kp_detector": "from fsrt_kp"}
    Fsrt(section.net).load_state_dict(tensors, strict=True)


@pytest.mark.parametrize("name", RELEASED_WEIGHTS_INITS)
def test_every_start_has_a_detector_and_is_known_to_the_registry(name):
    assert [find_third_party_weights(weights).id for weights in RELEASED_WEIGHTS_INITS[name].files] == list(
        RELEASED_WEIGHTS_INITS[name].files
    )
    assert {"fsrt_kp", "fomm_vox"} & set(RELEASED_WEIGHTS_INITS[name].files)


def test_a_file_of_two_sources_has_the_same_layout(tmp_path, files, trained, section):
    two = {"fsrt_vox_2src": imported(tmp_path, "fsrt_vox_2src", of(trained, *PARTS))}
    tensors, provenance = read_released_weights({**two, "fsrt_kp": files["fsrt_kp"]}, section)
    assert len(tensors) == len(flat(of(trained, *PARTS, "kp_detector")))
    assert provenance["net"] == "from fsrt_vox_2src"


@pytest.mark.parametrize("best", [np.float64(23.1), torch.tensor(23.1)])
def test_optimisers_and_counters_are_neither_imported_nor_needed(tmp_path, files, trained, section, best):
    net = nn.Linear(2, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    more = {
        "optimizer": adam.state_dict(),
        "optimizer_disc": adam.state_dict(),
        "it": 7,
        "t": 1.5,
        "loss_val_best": best,
        "run_id": None,
    }
    path = imported(tmp_path, "fsrt_vox", {**of(trained, *PARTS), **more})
    tensors, _ = read_released_weights({"fsrt_vox": path, "fsrt_kp": files["fsrt_kp"]}, section)
    assert same(tensors, flat(of(trained, *PARTS, "kp_detector")))


def test_fomms_detector_comes_without_its_jacobians(tmp_path, files, trained, section):
    state = {
        **trained["kp_detector"],
        "jacobian.weight": torch.ones(40, 7, 7, 7),
        "jacobian.bias": torch.ones(40),
    }
    fomm = {"generator": {"first.conv.weight": torch.ones(2)}, "kp_detector": state, "epoch": 99}
    path = imported(tmp_path, "fomm_vox", fomm)
    tensors, provenance = read_released_weights({"fsrt_vox": files["fsrt_vox"], "fomm_vox": path}, section)
    assert same(tensors, flat(of(trained, *PARTS, "kp_detector")))
    assert provenance["kp_detector"] == "from fomm_vox"


def test_the_prefix_of_data_parallelism_is_taken_off(tmp_path, files, trained, section):
    wrapped = {part: {f"module.{n}": t for n, t in trained[part].items()} for part in PARTS}
    path = imported(tmp_path, "fsrt_vox", wrapped)
    assert same(
        read_released_weights({"fsrt_vox": path, "fsrt_kp": files["fsrt_kp"]}, section)[0],
        read_released_weights(files, section)[0],
    )


@pytest.mark.parametrize(
    ("phase", "parts"),
    [
        ("keypoints", ("kp_detector",)),
        ("warmup", (*PARTS, "kp_detector")),
        ("adversarial", (*PARTS, "kp_detector", "discriminator")),
    ],
)
def test_a_phase_gets_the_parts_that_its_net_has(tmp_path, files, trained, section, phase, parts):
    path = imported(tmp_path, "fsrt_vox", of(trained, *PARTS, "discriminator"))
    tensors, _ = read_released_weights(
        {"fsrt_vox": path, "fsrt_kp": files["fsrt_kp"]}, section, PHASES[phase]
    )
    assert same(tensors, flat(of(trained, *parts)))


def test_a_detector_alone_begins_training_from_scratch(files, trained, section):
    tensors, provenance = read_released_weights({"fsrt_kp": files["fsrt_kp"]}, section, PHASES["warmup"])
    assert same(tensors, flat(of(trained, "kp_detector")))
    assert provenance == {"kp_detector": "from fsrt_kp"}


# --- strictness ---------------------------------------------------------------------------------------------
def broken(tmp_path, files, section, change, message):
    """Reads the files after `change` to a net's content; expects this error."""
    content = {part: dict(noise(net, 1)) for part, net in Fsrt(section.net).named_children() if part in PARTS}
    change(content)
    path = imported(tmp_path, "fsrt_vox", content)
    with pytest.raises(InvalidFile, match=message):
        read_released_weights({"fsrt_vox": path, "fsrt_kp": files["fsrt_kp"]}, section)


def test_a_missing_part_is_an_error(tmp_path, files, section):
    broken(tmp_path, files, section, lambda c: c.pop("decoder"), r"\d\d missing: decoder\.alloc.*, \.\.\.")


def test_a_missing_tensor_is_an_error(tmp_path, files, section):
    name = "per_patch_linear.bias"
    broken(tmp_path, files, section, lambda c: c["encoder"].pop(name), f"1 missing: encoder.{name}")


def test_an_unknown_tensor_is_an_error(tmp_path, files, section):
    def add(content):
        content["encoder"]["extra"] = torch.ones(1)
        content["ema"] = {"decay": torch.ones(1)}

    broken(tmp_path, files, section, add, "2 unknown: ema.decay, encoder.extra")


def test_a_tensor_of_another_shape_is_an_error(tmp_path, files, section):
    def cut(content):
        content["encoder"]["per_patch_linear.bias"] = torch.ones(3)

    said = r"1 of another shape: encoder.per_patch_linear.bias \(3,\) \(expected \(16,\)\)"
    broken(tmp_path, files, section, cut, said)


def test_another_architecture_is_told_by_its_settings(files, section):
    other = replace(section, net=replace(section.net, expression_size=12, decoder_mlp=20))
    with pytest.raises(
        InvalidFile, match=r"of another shape.*expression_size 8 \(fsrt.net: 12\).*decoder_mlp 16"
    ):
        read_released_weights(files, other)


def test_another_discriminator_is_an_error(tmp_path, files, trained, section):
    path = imported(tmp_path, "fsrt_vox", of(trained, *PARTS, "discriminator"))
    other = replace(section, discriminator=replace(DISCRIMINATOR, width=4))
    with pytest.raises(InvalidFile, match=r"of another shape: discriminator\.discs\.1"):
        read_released_weights({"fsrt_vox": path, "fsrt_kp": files["fsrt_kp"]}, other, PHASES["adversarial"])


def test_a_net_without_a_detector_is_an_error(files, section):
    with pytest.raises(InvalidSettings, match=r"one detector .fsrt_kp or fomm_vox.*holds no detector"):
        read_released_weights({"fsrt_vox": files["fsrt_vox"]}, section)


def test_two_detectors_are_an_error(tmp_path, files, trained, section):
    fomm = imported(tmp_path, "fomm_vox", of(trained, "kp_detector"))
    with pytest.raises(InvalidSettings, match="expected one detector"):
        read_released_weights({**files, "fomm_vox": fomm}, section)
    path = imported(tmp_path, "fsrt_vox", of(trained, *PARTS, "kp_detector"))
    with pytest.raises(
        InvalidFile, match=r"kp_detector.down.weight and \d+ more are in fsrt_kp and in fsrt_vox"
    ):
        read_released_weights({"fsrt_vox": path, "fsrt_kp": files["fsrt_kp"]}, section)


@pytest.mark.parametrize("weights_id", ["fsrt_vox", "fsrt_kp", "fomm_vox"])
def test_the_file_of_another_model_is_refused_before_it_is_imported(tmp_path, weights_id):
    path = imported(tmp_path, weights_id, {"conv1.weight": torch.ones(2), "fc.weight": torch.ones(3)})
    with pytest.raises(InvalidFile, match=f"this is not {weights_id}: .*missing.*2 unknown: .*conv1.weight"):
        check_weights_match_id(weights_id, path)


# --- what the shapes show -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "net",
    [
        full_architecture(),
        SMALL_DECODER,
        replace(full_architecture(), expression_size=64),
        replace(full_architecture(), keypoint_octaves=0),
        replace(full_architecture(), keypoint_octaves=0, expression_size=128),
    ],
)
def test_the_published_variants_are_known_by_their_shapes(net):
    with torch.device("meta"):
        tensors = Fsrt(net).state_dict()
    assert infer_architecture(tensors, full_architecture()) == net


# --- writing ------------------------------------------------------------------------------------------------
def test_item_10_what_is_written_reads_back_equal(tmp_path, trained, section):
    ours = flat(trained)
    written = export_released_format(ours, metadata(section.net), tmp_path / "out")
    assert [path.name for path in written] == ["kp_detector.pt", "vox256.pt"]
    files = {}
    for weights_id, path in zip(("fsrt_kp", "fsrt_vox"), written, strict=True):
        files[weights_id] = tmp_path / f"{weights_id}.safetensors"
        convert_checkpoint_to_safetensors(path, files[weights_id])
    assert same(read_released_weights(files, section)[0], ours)


def test_the_written_files_are_the_authors_dicts_of_tensors(tmp_path, trained, section):
    detector, net = export_released_format(flat(trained), metadata(section.net), tmp_path)
    assert torch.load(detector, weights_only=True).keys() == trained["kp_detector"].keys()
    content = torch.load(net, weights_only=True)
    assert content.keys() == {*PARTS, "discriminator"}
    for part in content:  # what their loader does, part by part
        assert same(content[part], trained[part])
    numbers = sum(tensor.nbytes for tensor in flat(trained).values())
    assert net.stat().st_size < 2 * numbers + 200_000  # each tensor with its own numbers only


def test_a_distilled_detector_is_written_alone(tmp_path, trained, section):
    tensors = flat(of(trained, "kp_detector"))
    facts = {"model": "fsrt", "phase": "keypoints", "detector": to_builtins(section.net.detector)}
    assert [path.name for path in export_released_format(tensors, facts, tmp_path)] == ["kp_detector.pt"]


def test_a_checkpoint_that_is_not_whole_is_not_written(tmp_path, trained, section):
    tensors = flat(trained)
    tensors.pop("decoder.render_mlp.0.bias")
    with pytest.raises(InvalidFile, match=r"phase adversarial is not whole: tensors 1 missing: decoder"):
        export_released_format(tensors, metadata(section.net), tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, trained, section):
    export_released_format(flat(trained), metadata(section.net), tmp_path)
    with pytest.raises(InvalidSettings, match=r"vox256.pt would be overwritten"):
        export_released_format(flat(trained), metadata(section.net), tmp_path)


# --- the published size -------------------------------------------------------------------------------------
@pytest.mark.slow
def test_item_10_the_published_layout_both_ways(tmp_path, golden):
    """Tensor by tensor the lists of the official modules; 69 million numbers there and back."""
    net = full_architecture()
    whole = dict(Fsrt(net).named_children())
    whole["discriminator"] = Discriminator(DiscriminatorConfig(), net.detector.keypoints)
    ours = flat({part: noise(module, i) for i, (part, module) in enumerate(whole.items())})
    facts = metadata(net)
    detector, net_file = export_released_format(ours, facts, tmp_path)

    lists = {
        "kp_detector": "keypoint_detector",
        "expression_encoder": "expression_encoder",
        "encoder": "encoder_64_n1",
        "decoder": "decoder_q128_z64",
        "discriminator": "discriminator",
    }
    content = torch.load(net_file, weights_only=True)
    content["kp_detector"] = torch.load(detector, weights_only=True)
    for part, name in lists.items():
        official = dict(golden.figures["modules"][name]["state"])
        assert {key: list(tensor.shape) for key, tensor in content[part].items()} == official

    files = {"fsrt_vox": tmp_path / "vox.safetensors", "fsrt_kp": tmp_path / "kp.safetensors"}
    convert_checkpoint_to_safetensors(net_file, files["fsrt_vox"])
    convert_checkpoint_to_safetensors(detector, files["fsrt_kp"])
    check_weights_match_id("fsrt_vox", files["fsrt_vox"])
    check_weights_match_id("fsrt_kp", files["fsrt_kp"])
    assert same(read_released_weights(files)[0], ours)
    released = load_released(files)
    assert released.metadata["architecture"] == to_builtins(net)
    assert load_reenactor(SPEC, {"renderer": released}).architecture == net
    with pytest.raises(InvalidSettings, match="hold a detector alone, which cannot render"):
        load_released({"fsrt_kp": files["fsrt_kp"]})
    no_negative = FsrtConfig(net=replace(net, start_octave=0), augment=AugmentConfig(out_of_frame=0))
    with pytest.raises(
        InvalidSettings, match=r"trained with other settings: fsrt.net.start_octave 0 \(theirs: -1\)"
    ):
        read_released_weights(files, no_negative)
