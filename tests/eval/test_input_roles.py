from pipelines.eval import input_roles as roles


def test_the_inputs_of_a_protocol_are_found_by_their_roles():
    inputs = {
        roles.report_pairs_input_role("self"): 0, roles.report_samples_input_role("self", "fsrt"): 1,
        roles.score_input_role("self", "fsrt"): 2,
        roles.report_samples_input_role("cross", "fsrt"): 3,
    }  # fmt: skip
    assert roles.list_input_protocols(inputs) == ["self", "cross"]
    assert roles.inputs_by_method(inputs, "self", roles.SAMPLES_INPUT) == {"fsrt": 1}
    assert roles.inputs_by_method(inputs, "cross", roles.SCORE_INPUT) == {}
