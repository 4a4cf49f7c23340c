"""`reenact animate` as a command: options, errors of one line, metadata of the output."""

import hashlib
import json
from typing import cast

import av
import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.animate.checkpoint import ModelWeightsLocation
from pipelines.cli.animate import AnimateArguments, clips_config, describe_square
from pipelines.cli.main import main
from pipelines.errors import UserError
from pipelines.preprocess.clips_config import ClipsConfig
from storage.files import Store
from tests.animate.stand_ins import (
    ABOUT,
    encode,
)


def invoke(*arguments):
    return CliRunner().invoke(main, ["animate", *map(str, arguments)])


def test_the_command_makes_a_video_that_tells_its_weights(checkpoint, videos, source, tmp_path):
    out = tmp_path / "out.mp4"
    done = invoke(source, source, "--driving", videos["pcm"], "-o", out, "--checkpoint", checkpoint,
                  "--motion", "relative", "--adapt-scale", "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "20 frames of 64 x 64, 0.800 s, 25 frames/s" in done.output
    assert "fsrt · net: untrained" in done.output
    assert "faces seen by mp_face, cut to 256 px" in done.output
    with av.open(str(out)) as container:
        tags = container.metadata
    assert tags["reenact.provenance"] == "net: untrained"
    assert tags["reenact.motion"] == "relative, adapt-scale"
    assert tags["reenact.checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert tags["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert tags["comment"].startswith("Synthetic media")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "give one of --checkpoint"),
        (["--weights", "fsrt_none"], 2, "no released weights 'fsrt_none'; known: fsrt_vox"),
        (["--weights", "fsrt_vox"], 2, "reenact weights import fsrt_vox"),
        (["--checkpoint", "SOURCE"], 2, "is no safetensors file"),
        (["--checkpoint", "MODEL", "--model", "headgan"], 2, "holds fsrt, not headgan"),
        (["--checkpoint", "MODEL", "--best-frame"], 2, "--motion relative"),
        (["--checkpoint", "MODEL", "--turn", "yaw=20"], 2, "fsrt cannot make a head's yaw +20 degrees"),
        (["--checkpoint", "MODEL", "--turn", "nod=20"], 2, "turn nod: expected some of pitch, yaw, roll"),
        (["--checkpoint", "MODEL", "--pose", "yaw"], 2, "--pose yaw: expected NAME=NUMBER"),
        (
            ["--checkpoint", "MODEL", "--set", "clips.size=64"],
            2,
            "without --run there is only perception.faces",
        ),
        (["--checkpoint", "MODEL", "-o", "x.avi"], 2, "ends with .mp4"),
        (["--checkpoint", "MODEL", "-o", "none/x.mp4"], 2, "no such folder"),
        (["--checkpoint", "MODEL", "--driving", "gone.mp4"], 2, "gone.mp4: no such file"),
    ],
)
def test_a_wrong_wish_is_one_line(arguments, code, told, checkpoint, videos, source, tmp_path):
    swap = {"SOURCE": source, "MODEL": checkpoint}
    options = ["--driving", videos["silent"], "-o", tmp_path / "o.mp4", "--store", tmp_path / "store"]
    done = invoke(source, *options, *(swap.get(word, word) for word in arguments))
    assert done.exit_code == code, done.output
    assert told in done.output
    assert not list(tmp_path.glob("*.mp4"))


def options(**given):
    none = dict.fromkeys(("detector", "size", "margin", "lift"))
    return cast(AnimateArguments, none | given)


def located(tmp_path, **clips):
    return ModelWeightsLocation(
        model="headgan", name="run", files={}, clips=ClipsConfig(**clips), store=Store(str(tmp_path))
    )


@pytest.mark.parametrize(
    ("clips", "told"),
    [
        ({"margin": 0.2, "lift": 0.1}, "margin 0.2, lift 0.1"),
        ({"rules": "headgan", "increase": 50 / 156}, "by headgan rules, increase 0.321"),
    ],
)
def test_the_square_is_told_as_it_is_cut(tmp_path, clips, told):
    assert describe_square(clips_config(located(tmp_path, **clips), options())) == told


@pytest.mark.parametrize("option", ["margin", "lift"])
def test_an_option_that_the_runs_rules_do_not_know_is_one_line(tmp_path, option):
    model = located(tmp_path, rules="headgan", detector="mtcnn")
    with pytest.raises(UserError, match=f"--{option}: this run cuts faces by clips.rules headgan"):
        clips_config(model, options(**{option: 0.2}))
    assert clips_config(model, options(size=128)).size == 128


def test_an_input_is_not_overwritten(checkpoint, videos, source):
    done = invoke(source, "--driving", videos["silent"], "-o", videos["silent"], "--checkpoint", checkpoint)
    assert done.exit_code == 2
    assert "would overwrite an input" in done.output


def test_a_failure_leaves_nothing_behind(checkpoint, source, tmp_path):
    grey = encode(tmp_path / "grey.mp4", np.full((20, 128, 128, 3), 90, np.uint8))
    (tmp_path / "out").mkdir()
    done = invoke(source, "--driving", grey, "-o", tmp_path / "out" / "o.mp4", "--checkpoint", checkpoint)
    assert done.exit_code == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_cannot_drive_is_found_before_a_model_is_looked_for(source, tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
    given = [
        "animate",
        str(source),
        "--driving",
        str(path),
        "-o",
        str(tmp_path / "o.mp4"),
        "--weights",
        "none",
    ]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert (
        "sound.wav holds no video stream, only ['audio']; a picture or a video shows the face" in done.output
    )


# --- HeadGAN ---------------------------------------------------------------------------------------------
def test_the_command_tells_edits_and_copies_the_sound(headgan_state, talks, bust, headgan_folder, tmp_path):
    from safetensors.torch import save_file

    checkpoint, out = headgan_folder / "model.safetensors", tmp_path / "out.mp4"
    save_file(headgan_state, checkpoint, metadata={"reenact": json.dumps(ABOUT)})
    done = CliRunner().invoke(main, ["animate", *map(str, (
        bust, "--driving", talks["talk"], "-o", out, "--checkpoint", checkpoint, "--device", "cpu",
        "--turn", "yaw=20", "--expression", "jaw_open=1.5", "--identity", "0=2.0",
        "--size", 128))])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "16 frames of 32 x 32, 0.640 s, 25 frames/s, sound copied (aac)" in done.output
    with av.open(str(out)) as container:
        tags = container.metadata
    assert tags["reenact.model"] == "headgan"
    assert tags["reenact.motion"] == "relative"
    assert tags["reenact.edits"] == "yaw +20 degrees, expression jaw_open +1.5 sigmas, identity 0 +2 sigmas"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_an_identity_that_the_head_does_not_have_is_one_line(headgan_state, bust, headgan_folder, tmp_path):
    from safetensors.torch import save_file

    checkpoint = headgan_folder / "identity.safetensors"
    save_file(headgan_state, checkpoint, metadata={"reenact": json.dumps(ABOUT)})
    done = CliRunner().invoke(main, ["animate", *map(str, (
        bust, "-o", tmp_path / "o.png", "--checkpoint", checkpoint, "--device", "cpu",
        "--identity", "chin=2"))])  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "identity chin: analytic has components 0 to 16 or one of head_width, face_length" in done.output
    assert not list(tmp_path.iterdir())


def test_a_head_that_is_not_here_is_told_before_anything_is_of_it(
    headgan_state, bust, headgan_folder, tmp_path
):
    from safetensors.torch import save_file

    checkpoint = headgan_folder / "lsfm.safetensors"
    save_file(headgan_state, checkpoint, metadata={"reenact": json.dumps(ABOUT | {"head": "lsfm"})})
    done = CliRunner().invoke(main, ["animate", *map(str, (
        bust, "-o", tmp_path / "o.png", "--checkpoint", checkpoint, "--device", "cpu", "--frontal",
        "--store", tmp_path / "store"))])  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "lsfm.safetensors draws head lsfm: weights lsfm" in done.output
    assert "--set headgan.head=analytic_head draws another" in done.output
    assert "headgan \u00b7" not in done.output
    assert "faces were fitted" not in done.output
