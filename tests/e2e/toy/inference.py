import torch

from models.checkpoint import read_checkpoint
from models.reenactor import FrameDrivenReenactor
from models.toy.network import Toy, images


class Reenactor(FrameDrivenReenactor):
    def __init__(self, checkpoint, device):
        self.image_size, self.provenance, self.notes = checkpoint.metadata["architecture"]["size"], {}, []
        self.net = checkpoint.load_net(lambda: Toy(self.image_size)).to(device).requires_grad_(False)

    @classmethod
    def from_checkpoints(cls, checkpoints, device="cpu", precision="auto"):
        return cls(checkpoints["renderer"], device)

    def encode_sources(self, sources):
        return images(torch.from_numpy(sources.frames[:1]), self.image_size)

    def extract_motion(self, driving):
        return {"codes": self.net.encoder(images(torch.from_numpy(driving.frames), self.image_size))}

    def render(self, scene, motion):
        return (scene + self.net.generator(motion["codes"])).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def load(files):
    return Reenactor(read_checkpoint(files["encoder"]), "cpu").net


def invert(inputs, config, nets, runtime):
    """One code a clip, (1,4): the mean over its frames."""
    for clip in inputs["clips"]:
        frames = images(torch.from_numpy(clip["frames"]), config.size)
        yield {"__key__": clip["__key__"], "codes": nets["toy"].encoder(frames).mean(0, keepdim=True).numpy()}
