"""Pairs written out for other code, and frames of other code brought in: the codec ceiling, exported and
imported again, scores the same to the last digit."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

MICRO = str(Path(__file__).with_name("micro.yaml"))


def scores(home, stage: str) -> dict[str, dict]:
    (path,) = home.store.glob(f"whole/{stage}/*/metrics.json")
    return {record["name"]: record for record in json.loads(path.read_text())}


def test_pairs_are_written_with_what_other_code_needs(micro, tmp_path):
    out = micro.ask("pairs", MICRO, "--out", str(tmp_path / "pairs"))
    assert "of protocol self to" in out
    listed = (tmp_path / "pairs/pairs.csv").read_text().splitlines()
    assert listed[0] == "file,source,source_frames,driving,driving_frames,sound"
    for row in listed[1:]:
        name, _, _, _, frames, _ = row.split(",")
        numbers = [int(number) for number in frames.split()]
        own = tmp_path / "pairs" / name
        assert Image.open(own / "source_0.png").size == (64, 64)
        assert len(list((own / "driving").iterdir())) == len(numbers) == 6
        sound, rate = soundfile.read(own / "driving.wav")
        assert (len(sound), rate) == ((numbers[-1] - numbers[0] + 1) * 640, 16_000)
        assert np.abs(sound).max() > 0


@pytest.mark.slow
def test_the_codec_ceiling_of_an_outside_folder_scores_the_same_to_the_last_digit(copy, tmp_path):
    copy.ask("pairs", MICRO, "--method", "codec", "--out", str(tmp_path / "frames"))
    done = copy.call("run", MICRO, "--set", f"eval.methods.theirs.folder={tmp_path / 'frames'}")
    assert done.returncode == 0, done.stdout + done.stderr
    theirs, ours = scores(copy, "score.external"), scores(copy, "score.codec")
    assert theirs.keys() == ours.keys()
    computed = {name for name, record in ours.items() if record["value"] is not None}
    assert computed >= {"l1", "psnr_frame", "psnr_pooled", "ssim", "akd_l1_dlib", "fd_efflite0_b15"}
    for name in ours:
        assert theirs[name]["value"] == ours[name]["value"], name
        assert theirs[name]["kind"] == "external"
