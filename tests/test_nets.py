import pytest

from models.perception import NETS
from pipelines.nets import collect_net_requirements, load_nets
from storage.errors import InvalidInput
from storage.files import Store

MISSING = "deca"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def test_what_a_node_needs_is_what_all_of_its_nets_need():
    found = collect_net_requirements(["analytic_head", MISSING])
    assert found.code == (NETS["analytic_head"].loader, NETS[MISSING].loader)
    assert set(NETS[MISSING].weights) <= set(found.weights)
    assert found.gpu == (NETS["analytic_head"].gpu or NETS[MISSING].gpu)


def test_a_net_that_is_embedded_is_loaded_from_an_empty_store(store):
    assert load_nets(["analytic_head"], store)["analytic_head"].name == "analytic"


def test_a_net_whose_weights_are_missing_is_an_error_or_left_out(store):
    assert list(load_nets(["analytic_head", MISSING], store, missing="skip")) == ["analytic_head"]
    with pytest.raises(InvalidInput):
        load_nets([MISSING], store)
