from pipelines.eval import comparison_roles as roles


def test_the_inputs_of_a_protocol_are_found_by_their_roles():
    inputs = {
        roles.pairs("self"): 0, roles.samples("self", "fsrt"): 1, roles.score("self", "fsrt"): 2,
        roles.samples("cross", "fsrt"): 3,
    }  # fmt: skip
    assert roles.protocols(inputs) == ["self", "cross"]
    assert roles.of_protocol(inputs, "self", roles.SAMPLES) == {"fsrt": 1}
    assert roles.of_protocol(inputs, "cross", roles.SCORE) == {}
