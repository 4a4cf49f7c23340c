import pytest
import torch

from models.precision import autocast, has_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_matrix_products_run_in_the_precision_asked_for_where_the_processor_has_it(precision, wanted):
    with autocast(precision, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (wanted if has_bf16(CPU) else torch.float32)


def test_a_device_without_bf16_stays_in_float32():
    assert not has_bf16(torch.device("meta"))
    capabilities = torch.cpu.get_capabilities()
    assert has_bf16(CPU) == any(capabilities.get(k, False) for k in ("avx512_bf16", "amx_bf16", "bf16"))


def test_an_unknown_precision_is_an_error():
    with pytest.raises(ValueError, match="fp16"):
        autocast("fp16", CPU)
