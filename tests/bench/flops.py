"""FLOPs of FSRT's work: what PyTorch counts, and operators that it does not know."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_product(x, weight, *_, **__):
    """Shapes (N,I), (O,I)"""
    return 2 * x[0] * x[1] * weight[0]


def count_attention(q, k, v, *_, **__):
    return sdpa_flop_count(q, k, v)


def count_attention_backward(_, q, k, v, *__, **___):
    """Two forward passes: what a kernel computes a second time is no work of the model."""
    return 2 * sdpa_flop_count(q, k, v)


ATEN = torch.ops.aten
COUNTED = {
    torch.ops.mkldnn._linear_pointwise: count_product,
    ATEN._scaled_dot_product_flash_attention_for_cpu: count_attention,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: count_attention_backward,
    ATEN._scaled_dot_product_flash_attention_backward: count_attention_backward,
    ATEN._scaled_dot_product_efficient_attention_backward: count_attention_backward,
    ATEN._scaled_dot_product_cudnn_attention_backward: count_attention_backward,
}


def flops(work):
    """FLOPs of one piece of work: what PyTorch counts, and operators that it does not know."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        work()
    return counter.get_total_flops()
