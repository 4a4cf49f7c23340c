"""The speech stage with wav2vec 2.0 base against the bare model on the same sound, and what float16 costs.

python -m pytest tests/bench/bench_speech.py -m bench -s     one thread, random weights of the published size
"""

import os

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from models.perception.speech.wav2vec import Wav2Vec2, zero_mean_unit_variance
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.preprocess.speech import SpeechFeaturesConfig, encode_speech

CLIPS = {"8 clips of 5 s": [125] * 8, "8 clips of 2.6 to 8 s": [64, 80, 90, 110, 125, 150, 181, 200]}


def cpu():
    return sum(os.times()[:4])


def clips(lengths):
    rng = np.random.default_rng(0)
    return [
        {"__key__": f"a#r#{i:06d}#{n:06d}", "sound": rng.normal(0, 0.1, 640 * n).astype(np.float32),
         "clip": {"frames": n}}
        for i, n in enumerate(lengths)
    ]  # fmt: skip


def bare(net, some):
    """Batches of equal length, cut out of the same sound beforehand: what the model can do at best."""
    samples = 640 * round(sum(c["clip"]["frames"] for c in some) / len(some))
    sound = np.concatenate([zero_mean_unit_variance(c["sound"]) for c in some])[: samples * len(some)]
    batch = torch.from_numpy(np.resize(sound, (len(some), samples)))
    begin = cpu()
    with torch.inference_mode():
        net(batch)
    return cpu() - begin


@pytest.mark.bench
def test_the_stage_against_the_bare_model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Wav2Vec2Model(Wav2Vec2Config()).eval()
    config = SpeechFeaturesConfig(encoder="wav2vec2_base")
    nets = {"wav2vec2_base": Wav2Vec2(net, "wav2vec2_base", True)}
    print()
    for name, lengths in CLIPS.items():
        some, ours, theirs, features = clips(lengths), [], [], []
        for _ in range(3):
            theirs.append(bare(net, some))
            begin = cpu()
            features = [s["speech"] for s in encode_speech({"clips": some}, config, nets, RuntimeConfig())]
            ours.append(cpu() - begin)
        seconds = sum(lengths) / 25
        print(
            f"{name}: stage {seconds / min(ours):.2f} s of sound a CPU second, bare model "
            f"{seconds / min(theirs):.2f}: {100 * min(theirs) / min(ours):.0f} %"
        )
        full = np.concatenate(features)
        off = np.abs(full.astype(np.float16).astype(np.float32) - full)
        print(
            f"  float16: RMS {np.sqrt((off**2).mean()) / full.std():.1e} of the spread, worst {off.max():.1e}"
        )
