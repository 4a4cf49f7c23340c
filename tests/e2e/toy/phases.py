from models.api import Loss, Optimizer, Phase, Update

D = {"discriminator": 1.0}
IMAGES = Phase(
    name="images", steps=8, batch=4, chunk=2, optimizers={"g": Optimizer(lr=1e-3), "d": Optimizer(lazy=4)},
    updates={
        "generator": Update(parts={"encoder": 1, "generator": 1}, losses={"l1": Loss(1.0), "gan": Loss(0.1)}),
        "discriminator": Update(parts=D, optimizer="d", losses={"logistic": Loss(1.0)}, own_forward=True),
        "r1": Update(parts=D, optimizer="d", losses={"r1": Loss(4.0)}, every=4, own_forward=True),
    },
)  # fmt: skip
CODES = Phase(  # codes of clips come back from the images that are made of them
    name="codes", init="images", steps=4, batch=4, optimizers={"g": Optimizer()},
    updates={"generator": Update(parts={"generator": 1.0}, losses={"code": Loss(1.0)})},
)  # fmt: skip
PHASES = {phase.name: phase for phase in (IMAGES, CODES)}
