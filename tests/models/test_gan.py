"""A discriminator whose weights are constants."""

from __future__ import annotations

import torch
from torch import nn

from models.gan import forward_with_frozen_weights


def test_gradient_reaches_the_inputs_and_no_weight():
    net, images = nn.Linear(3, 1), torch.ones(2, 3, requires_grad=True)
    forward_with_frozen_weights(net, net, images).sum().backward()
    torch.testing.assert_close(images.grad, net.weight.detach().expand(2, 3))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_copy_computes_in_its_own_mode_with_the_others_tensors():
    trained = nn.BatchNorm1d(1)
    trained.running_mean.fill_(2.0)
    copy = nn.BatchNorm1d(1).to("meta").eval()
    out = forward_with_frozen_weights(copy, trained, torch.tensor([[2.0], [3.0]]))
    torch.testing.assert_close(out.detach(), torch.tensor([[0.0], [1.0]]), rtol=0, atol=1e-4)
