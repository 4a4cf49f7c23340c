import pytest
import torch

from models import precision
from models.errors import InvalidSettings
from models.precision import autocast, best_precision, supports_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(("asked", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_matrix_products_run_in_the_precision_asked_for(asked, wanted, monkeypatch):
    monkeypatch.setattr(precision, "supports_bf16", lambda device: True)  # emulated, where it is not so
    with autocast(asked, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == wanted


def test_a_device_without_bf16_refuses_it(monkeypatch):
    monkeypatch.setattr(precision, "supports_bf16", lambda device: False)
    with pytest.raises(InvalidSettings, match=r"cpu does not multiply .*--set MODEL.precision=fp32"):
        autocast("bf16", CPU)


def test_what_multiplies_in_bf16_itself():
    assert not supports_bf16(torch.device("meta"))
    capabilities = torch.cpu.get_capabilities()
    assert supports_bf16(CPU) == any(capabilities.get(k, False) for k in ("avx512_bf16", "amx_bf16", "bf16"))
    assert best_precision(CPU) == "fp32"


def test_an_unknown_precision_is_an_error():
    with pytest.raises(ValueError, match="fp16"):
        autocast("fp16", CPU)
