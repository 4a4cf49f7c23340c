"""Face models and checkpoints in their publishers' layouts, made by formula."""

import numpy as np

V = 60  # vertices of the small FLAME


def flame_arrays():
    """FLAME's arrays at 60 vertices: a dome that looks along z."""
    from scipy.spatial import Delaunay

    k = np.arange(V * 3 * 400)
    u = np.arange(V) * 2.399963
    r = np.sqrt(np.arange(V) / V) * 0.08
    template = np.stack([r * np.cos(u) + 0.01, r * np.sin(u) - 0.05, 0.12 - 6 * r**2], axis=1)
    regressor = np.abs(np.sin(0.11 * np.arange(5 * V))).reshape(5, V) ** 20
    weights = (1.05 + np.sin(0.29 * np.arange(V * 5))).reshape(V, 5)
    return {
        "v_template": template,
        "f": Delaunay(template[:, :2]).simplices.astype(np.uint32),
        "shapedirs": 0.002 * np.sin(0.05 * k + 1).reshape(V, 3, 400),
        "posedirs": 0.001 * np.cos(0.03 * np.arange(V * 3 * 36)).reshape(V, 3, 36),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
    }


def flame_embedding(arrays):
    j = np.arange(68)
    bary = np.stack([1 + j % 3, 1 + (j + 1) % 3, 2 + 0 * j], axis=1).astype(float)
    return {
        "full_lmk_faces_idx": (9 * j + 1)[None] % len(arrays["f"]),
        "full_lmk_bary_coords": (bary / bary.sum(1, keepdims=True))[None],
    }


def flame_model(path):
    """A converted FLAME at `path`, as the weights' registry keeps it."""
    from models.perception.head import converters

    arrays = flame_arrays()
    np.savez(path.with_name("flame.npz"), **arrays)
    np.savez(path.with_name("embedding.npz"), **flame_embedding(arrays))
    converters.write_morphable_model(
        path, *converters.convert_flame(path.with_name("flame.npz"), path.with_name("embedding.npz"))
    )
    return path


def wave(shape, k):
    """Between -1 and 1."""
    return 2 * (0.5 + 0.5 * np.sin(0.11 * np.arange(np.prod(shape)) + k)).reshape(shape) - 1


def bfm_arrays():
    """BFM_model_front.mat at 12 vertices, by the formulas of golden deep3d_parametric_face_model."""
    tri = [[1, 2, 3], [6, 9, 7], [11, 4, 9], [4, 11, 12], [9, 6, 3], [2, 1, 6], [7, 8, 9], [12, 3, 1]]
    tri += [[5, 10, 3], [10, 5, 6], [3, 12, 9], [8, 7, 12], [1, 2, 3], [6, 9, 7], [11, 4, 9], [4, 11, 12]]
    return {
        "meanshape": wave((1, 36), 0.1), "idBase": 0.05 * wave((36, 80), 0.2),
        "exBase": 0.05 * wave((36, 64), 0.3), "meantex": 60 * wave((1, 36), 0.4) + 128,
        "texBase": 5 * wave((36, 80), 0.5), "tri": np.array(tri, float),
        "keypoints": (np.arange(68) % 12 + 1)[None], "skinmask": np.ones((1, 12)),
        "frontmask2_idx": np.array([[1], [12]]), "point_buf": np.ones((12, 8)),
    }  # fmt: skip


def filled(net, scheme):
    """The net with weights of the golden files' schemes: entries by name, floats only, numbered from 0."""
    import torch

    state = net.state_dict()
    slopes = {f"{name}.weight" for name, part in net.named_modules() if isinstance(part, torch.nn.PReLU)}
    for i, name in enumerate(sorted(n for n, t in state.items() if t.is_floating_point())):
        shape, k = state[name].shape, np.arange(state[name].numel(), dtype=np.int64)
        if scheme == "hash":
            v = np.sin((k + 1) * 12.9898 + (i + 1) * 78.233) * 43758.5453
            u, fan = 2 * (v - np.floor(v)) - 1, max(1, int(np.prod(shape[1:])))
            weight, other = 0.25 + 0.1 * u if name in slopes else 1 + 0.3 * u, 0.1 * u
            many = np.sqrt(3) * np.sqrt(1.6 / fan) * u
        else:  # chirp
            u, fan = np.sin(2 * np.pi * ((k * k) % 10007) / 10007 + i), int(np.prod(shape[1:]))
            weight, other = 1 + 0.1 * u, 0.05 * u
            many = 1.5 / np.sqrt(max(1, fan)) * u
        if name.endswith("running_var"):
            values = 1 + 0.5 * np.abs(u)
        else:
            values = many if len(shape) > 1 else weight if name.endswith("weight") else other
        state[name] = torch.from_numpy(values.reshape(shape)).float()
    net.load_state_dict(state)
    return net


def deca_checkpoint(path, net):
    """deca_model.tar: three nets' tensors, of which one is read."""
    import torch

    detail = {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save({"E_flame": net.state_dict(), "E_detail": detail, "D_detail": {}}, path)
    return imported(path)


def deep3d_checkpoint(path, net):
    """epoch_20.pth: the net beside its optimizer."""
    import torch

    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"net_recon": net.state_dict(), "opt_00": optimizer}, path)
    return imported(path)


def imported(path):
    """What `reenact weights import` makes of a publisher's file."""
    from storage.weights_import import convert_checkpoint_to_safetensors

    target = path.with_suffix(".safetensors")
    convert_checkpoint_to_safetensors(path, target)
    return target


def saying(net, code):
    """The net, whatever it sees, says this code."""
    import torch

    last = net.layers[2:] if hasattr(net, "layers") else net.final_layers
    at = 0
    for layer in last:
        torch.nn.init.zeros_(layer.weight)
        layer.bias.data = torch.as_tensor(code[at : at + len(layer.bias)], dtype=torch.float32)
        at += len(layer.bias)
    return net
