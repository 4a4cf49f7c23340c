"""The models by name: the package of each. `<package>.inference` has `load_reenactor(path)` for inference."""

MODELS: dict[str, str] = {"fsrt": "models.fsrt", "headgan": "models.headgan"}
