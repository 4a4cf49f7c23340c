import numpy as np
import torch
import torch.nn.functional as F

from models.task import StatelessTask, ValidationOutput
from models.toy.network import Toy, images


class ToyTask(StatelessTask):
    def __init__(self, size):
        self.size, self.net = size, Toy(size)

    def sample(self, rng, tables, training):
        clip = tables["clips"].pick_clip(rng)
        source, driving = clip.frames(rng.integers(clip.length, size=2))
        codes = np.zeros(4, np.float32)
        if "codes" in tables:
            codes = tables["codes"].pick_clip(rng).read_field("codes")[0]
        return {"source": source, "driving": driving, "codes": codes}

    def losses(self, batch, step):
        source, real = (images(batch[name], self.size) for name in ("source", "driving"))
        fake = source + self.net.generator(self.net.encoder(real))
        codes, logits = batch["codes"], self.net.discriminator
        return {
            "l1": lambda: F.l1_loss(fake, real),
            "gan": lambda: F.softplus(-logits(fake)).mean(),
            "logistic": lambda: (F.softplus(-logits(real)) + F.softplus(logits(fake.detach()))).mean(),
            "r1": lambda: self.gradient_penalty(real.requires_grad_()),
            "code": lambda: F.mse_loss(self.net.encoder(self.net.generator(codes)), codes),
        }

    def gradient_penalty(self, real):
        (gradient,) = torch.autograd.grad(self.net.discriminator(real).sum(), real, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    def validation_step(self, batch):
        source, driving = (images(batch[name], self.size) for name in ("source", "driving"))
        output = (source + self.net.generator(self.net.encoder(driving))).clamp(0, 1)
        found = [(x.permute(0, 2, 3, 1) * 255).byte().numpy() for x in (source, driving, output)]
        row = np.concatenate(found, 2)
        return ValidationOutput(row=row, source=found[0], driving=found[1], output=found[2])

    def architecture_metadata(self):
        return {"model": "toy", "architecture": {"size": self.size}}
