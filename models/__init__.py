"""The models by name: "module:symbol" of the `ModelSpec` of each (models/spec.py)."""

MODELS: dict[str, str] = {"fsrt": "models.fsrt.spec:SPEC", "headgan": "models.headgan.spec:SPEC"}
