"""Licensed face models -> the product's own: files as their publishers give them, read without running code.

    python -m models.perception.converters bfm BFM_model_front.mat OUT.safetensors
    python -m models.perception.converters flame generic_model.pkl landmark_embedding.npy OUT.safetensors
    python -m models.perception.converters tddfa bfm_noneck_v3.pkl tri.pkl param_mean_std_62d_120x120.pkl OUT
    python -m models.perception.converters lsfm all_all_all.mat sampler1035ver.pkl MESH.npz OUT.safetensors

then `reenact weights import bfm_deep3d OUT.safetensors`, or flame_model, bfm_3ddfa, lsfm. What is written is
the arrays of a MorphableModel, text as UTF-8 bytes, so that the weights' registry keeps and pins it like any
file of tensors.

| model | identity, expression | unit | landmarks |
|---|---|---|---|
| bfm: Basel 2009 as Deep3DFaceRecon cuts it, 35,709 vertices | 80, 64 sigmas | 0.1 m | 68 vertices |
| flame: FLAME 2020, 5,023 vertices | 100, 50 sigmas, then the jaw's 3 | 1 m | barycentric |
| tddfa: Basel 2009 as 3DDFA_V2 cuts it, 38,365 vertices | 40, 10 sigmas | 0.1 m | 68 vertices |
| lsfm: LSFM as HeadGAN uses it, 53,215 vertices | 157, 28; to 0.8, 1.5 | its own | 68 vertices, 1035 dense |

LSFM's file has no mesh: MESH.npz holds `faces` (F,3) and `lm68` (68,), vertices counted from 0.

FLAME turns the jaw; here it moves along the tangent: off by 1 - cos of the angle of its distance from the
joint, 4 mm at the chin for 0.3 rad (a mouth wide open), 1 mm for 0.15. Its neck and eyes stay still.

Pickles are read by array_pickle.py, which runs nothing of theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from models.perception.array_pickle import as_array, read_pickle
from models.perception.morphable import MorphableModel, vertex_normals

FLAME_SHAPE, FLAME_EXP = 100, 50  # of 300 and 100
FLAME_EXP_FROM = 300
JAW, JAW_NAMES = 2, ("jaw_x", "jaw_y", "jaw_z")
JAW_BOUND = (0.6, 0.3, 0.3)  # radians
LSFM_ARRAYS = ("id_basis", "exp_basis", "mean")
ALONE = np.tile(np.array([1, 0, 0], np.float32), (68, 1))
_TEXTS = ("name", "license")
_NAMES = ("id_names", "exp_names")
_REGION = "region_"


# --- files of arrays ----------------------------------------------------------------------------------------
def write_arrays(path: Path, model: MorphableModel, extra: Mapping[str, np.ndarray] | None = None) -> None:
    """A model, and arrays that belong to it, as one safetensors file."""
    from safetensors.numpy import save_file

    arrays = {_REGION + name: mask for name, mask in model.regions.items()} | dict(extra or {})
    for one in fields(model):
        value = getattr(model, one.name)
        if one.name == "regions" or value is None or (one.name in _NAMES and not value):
            continue
        if one.name in (*_TEXTS, *_NAMES):
            text = value if one.name in _TEXTS else "\n".join(value)
            value = np.frombuffer(text.encode(), np.uint8)
        arrays[one.name] = np.asarray(value)
    save_file({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}, path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def read_model(path: Path) -> MorphableModel:
    """What `write_arrays` wrote; arrays that are not the model's are left aside."""
    arrays = read_arrays(path)
    known = {one.name for one in fields(MorphableModel)} - {"regions"}
    values: dict[str, Any] = {name: array for name, array in arrays.items() if name in known}
    missing = [name for name in ("name", "mean", "id_basis", "exp_basis", "lm68_index") if name not in values]
    if missing:
        raise ValueError(
            f"{path.name}: no {', '.join(missing)}; models.perception.converters writes such files"
        )
    for name in (*_TEXTS, *_NAMES):
        if name in values:
            text = values[name].tobytes().decode()
            values[name] = text if name in _TEXTS else tuple(text.split("\n"))
    if "metres_per_unit" in values:
        values["metres_per_unit"] = float(values["metres_per_unit"].item())
    regions = {n.removeprefix(_REGION): array for n, array in arrays.items() if n.startswith(_REGION)}
    return MorphableModel(regions=regions, **values)


def load_bfm(weights: Mapping[str, Path]) -> MorphableModel:
    return read_model(weights["bfm_deep3d"])


def load_flame(weights: Mapping[str, Path]) -> MorphableModel:
    return read_model(weights["flame_model"])


def load_3ddfa(weights: Mapping[str, Path]) -> MorphableModel:
    return read_model(weights["bfm_3ddfa"])


def load_lsfm(weights: Mapping[str, Path]) -> MorphableModel:
    return read_model(weights["lsfm"])


# --- Basel face model ---------------------------------------------------------------------------------------
def bfm(path: Path) -> MorphableModel:
    """Deep3DFaceRecon's BFM_model_front.mat (made once from the 2009 model and FaceWarehouse's
    expressions)."""
    from scipy.io import loadmat

    wanted = ("meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "keypoints")
    try:
        found = loadmat(path, variable_names=[*wanted, "skinmask", "frontmask2_idx"])
    except (NotImplementedError, ValueError, TypeError) as error:
        raise ValueError(f"{path.name} is not a MATLAB 5 file: {str(error).splitlines()[0]}") from error
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path.name}: no {', '.join(missing)}; expected Deep3DFaceRecon's model")
    mean = found["meanshape"].reshape(-1, 3).astype(np.float64)
    mean -= mean.mean(0)
    vertices = len(mean)

    def basis(name: str) -> np.ndarray:
        return np.ascontiguousarray(found[name], np.float32).reshape(vertices, 3, -1)

    corners = found["keypoints"].astype(np.int64) - 1
    regions = {}
    if "skinmask" in found:
        regions["skin"] = found["skinmask"].reshape(-1) > 0.5
    if "frontmask2_idx" in found:
        regions["front"] = np.zeros(vertices, bool)
        regions["front"][found["frontmask2_idx"].reshape(-1).astype(np.int64) - 1] = True
    return MorphableModel(
        name="bfm_deep3d",
        license="Basel Face Model 2009: registration, no commercial use",
        mean=mean.astype(np.float32),
        id_basis=basis("idBase"),
        exp_basis=basis("exBase"),
        faces=outward(mean, (found["tri"].astype(np.int64) - 1).astype(np.int32)),
        lm68_index=_thrice(corners),
        lm68_weight=ALONE,
        tex_mean=found["meantex"].reshape(-1, 3).astype(np.float32) / 255,
        tex_basis=basis("texBase") / np.float32(255),
        regions=regions,
        metres_per_unit=0.1,
    )


def outward(mean: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces (F,3) turned, all of them if any, so that they are counter-clockwise seen from outside."""
    away = (vertex_normals(mean, faces) * (mean - mean.mean(0))).sum()
    return faces if away >= 0 else np.ascontiguousarray(faces[:, ::-1])


def tddfa(model_path: Path, faces_path: Path, statistics_path: Path) -> MorphableModel:
    """3DDFA_V2's bfm_noneck_v3.pkl (u, w_shp, w_exp, keypoints: micrometres, vertex by vertex), its tri.pkl
    (3,F), and the deviations of its coefficients: 12 of the pose, 40 of shape, 10 of expression."""
    parts = _named(model_path, ("u", "w_shp", "w_exp", "keypoints"), "3DDFA_V2's model")
    sigma = _named(statistics_path, ("std",), "3DDFA_V2's statistics")["std"].reshape(-1)
    if sigma.shape != (62,):
        raise ValueError(f"{statistics_path.name}: {len(sigma)} deviations; expected 62")
    with faces_path.open("rb") as stream:
        triangles = as_array(read_pickle(stream, faces_path.name)).astype(np.int32)
    mean = parts["u"].reshape(-1, 3).astype(np.float64) * 1e-5
    mean -= mean.mean(0)
    bases = [
        (parts[name][:, : len(s)] * s * 1e-5).reshape(len(mean), 3, -1).astype(np.float32)
        for name, s in (("w_shp", sigma[12:52]), ("w_exp", sigma[52:]))
    ]
    corners = parts["keypoints"].reshape(-1, 3)[:, 0] // 3  # numbers of coordinates, not of vertices
    return MorphableModel(
        name="bfm_3ddfa",
        license="Basel Face Model 2009: registration, no commercial use",
        mean=mean.astype(np.float32),
        id_basis=bases[0],
        exp_basis=bases[1],
        faces=outward(mean, np.ascontiguousarray(triangles.T)),
        lm68_index=_thrice(corners),
        lm68_weight=ALONE,
        metres_per_unit=0.1,
    )


def lsfm(model_path: Path, sampler_path: Path, mesh_path: Path) -> MorphableModel:
    """all_all_all.mat (struct fmod: id_basis (3N,157), exp_basis (3N,28), mean (3N)), sampler1035ver.pkl
    (idxs: the vertices that dense landmarks stand for), and the mesh (see the table above)."""
    from scipy.io import loadmat

    try:
        fmod = loadmat(model_path, variable_names=["fmod"])["fmod"][0, 0]
        id_basis, exp_basis, mean = (np.asarray(fmod[name], np.float64) for name in LSFM_ARRAYS)
    except (NotImplementedError, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{model_path.name} holds no fmod of {', '.join(LSFM_ARRAYS)}: {error}") from error
    mesh = _named(mesh_path, ("faces", "lm68"), "LSFM's mesh")
    mean = mean.reshape(-1, 3) - mean.reshape(-1, 3).mean(0)
    bases = [basis.reshape(len(mean), 3, -1).astype(np.float32) for basis in (id_basis, exp_basis)]
    dense = _named(sampler_path, ("idxs",), "HeadGAN's sampler")["idxs"]
    return MorphableModel(
        name="lsfm",
        license="LSFM: registration, not to be passed on",
        mean=mean.astype(np.float32),
        id_basis=bases[0],
        exp_basis=bases[1],
        faces=outward(mean, mesh["faces"].astype(np.int32)),
        lm68_index=_thrice(mesh["lm68"]),
        lm68_weight=ALONE,
        id_bound=np.full(bases[0].shape[-1], 0.8, np.float32),
        exp_bound=np.full(bases[1].shape[-1], 1.5, np.float32),
        dense_index=dense.reshape(-1).astype(np.int32),
    )


def _thrice(corners: np.ndarray) -> np.ndarray:
    """Landmarks that are vertices (68,) -> lm68_index (68,3); their weights are ALONE."""
    return np.repeat(corners.reshape(-1)[:, None], 3, axis=1).astype(np.int32)


# --- FLAME --------------------------------------------------------------------------------------------------
def flame(model_path: Path, embedding_path: Path) -> tuple[MorphableModel, dict[str, np.ndarray]]:
    """generic_model.pkl (or an npz of the same arrays) and landmark_embedding.npy -> the model, and what
    DECA needs beside it: root (3,), root_basis (3,150), origin (3,)."""
    parts = read_flame(model_path)
    template = np.asarray(parts["v_template"], np.float64)
    shapes = np.asarray(parts["shapedirs"], np.float64)
    joints = np.asarray(parts["J_regressor"], np.float64)
    vertices = len(template)
    expected = {"shapedirs": (vertices, 3, 400), "J_regressor": (5, vertices), "weights": (vertices, 5)}
    for name, shape in expected.items():
        if np.shape(parts[name]) != shape:
            raise ValueError(f"{model_path.name}: {name} is {np.shape(parts[name])}; expected {shape}")
    origin = template.mean(0)
    id_basis = shapes[..., :FLAME_SHAPE]
    exp_basis = shapes[..., FLAME_EXP_FROM : FLAME_EXP_FROM + FLAME_EXP]
    faces = outward(template, np.asarray(parts["f"]).astype(np.int32))
    found = read_embedding(embedding_path)
    names = tuple(f"expression_{i:02d}" for i in range(FLAME_EXP))
    model = MorphableModel(
        name="flame",
        license="FLAME 2020: registration, see its licence",
        mean=(template - origin).astype(np.float32),
        id_basis=np.ascontiguousarray(id_basis, np.float32),
        exp_basis=np.concatenate([exp_basis, jaw_basis(parts)], axis=-1).astype(np.float32),
        faces=faces,
        lm68_index=np.asarray(parts["f"]).astype(np.int32)[found["full_lmk_faces_idx"].reshape(-1)],
        lm68_weight=found["full_lmk_bary_coords"].reshape(-1, 3).astype(np.float32),
        exp_bound=np.r_[np.full(FLAME_EXP, 3.0), JAW_BOUND].astype(np.float32),
        exp_names=(*names, *JAW_NAMES),
        metres_per_unit=1.0,
    )
    moved = np.concatenate([id_basis, exp_basis], axis=-1)
    beside = {
        "root": joints[0] @ template,
        "root_basis": np.einsum("v,vck->ck", joints[0], moved),
        "origin": origin,
    }
    return model, {name: value.astype(np.float32) for name, value in beside.items()}


def jaw_basis(parts: Mapping[str, Any]) -> np.ndarray:
    """(V,3,3): what a radian of the jaw about x, y, z does to the vertices, at rest: the turn about its
    joint, and the correctives that FLAME drives by the rotation matrix."""
    template, weights = (np.asarray(parts[name], np.float64) for name in ("v_template", "weights"))
    joint = np.asarray(parts["J_regressor"], np.float64)[JAW] @ template
    turns = np.array(
        [
            [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
            [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
            [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
        ],
        float,
    )  # d rotation / d angle, (axis,3,3)
    moved = np.einsum("v,kcd,vd->vck", weights[:, JAW], turns, template - joint)
    drives = np.asarray(parts["posedirs"], np.float64)[..., 9 * (JAW - 1) : 9 * JAW]  # the root drives none
    return moved + np.einsum("vcr,kr->vck", drives, turns.reshape(3, 9))


FLAME_ARRAYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")


def read_flame(path: Path) -> dict[str, np.ndarray]:
    """The arrays of generic_model.pkl, or of an npz."""
    return _named(path, FLAME_ARRAYS, "FLAME's generic_model")


def read_embedding(path: Path) -> dict[str, np.ndarray]:
    """full_lmk_faces_idx (1,68) and full_lmk_bary_coords (1,68,3) of DECA's landmark_embedding.npy."""
    names = ("full_lmk_faces_idx", "full_lmk_bary_coords")
    return _named(path, names, "DECA's landmark_embedding")


def _named(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """These arrays of an npz, a pickle, or an npy whose one object is a dict."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            found: dict[str, Any] = {name: archive[name] for name in archive.files}
    else:
        with path.open("rb") as stream:
            if path.suffix == ".npy":
                version = np.lib.format.read_magic(stream)
                later = np.lib.format.read_array_header_2_0
                (np.lib.format.read_array_header_1_0 if version == (1, 0) else later)(stream)
            found = read_pickle(stream, path.name)
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds a {type(found).__name__}, expected a dict of arrays")
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path.name}: no {', '.join(missing)}; expected {what}")
    return {name: as_array(found[name]) for name in names}


CONVERTERS = {"bfm": (bfm, 1), "flame": (flame, 2), "tddfa": (tddfa, 3), "lsfm": (lsfm, 3)}
"""Name -> converter and how many files it reads."""


def main(arguments: list[str]) -> None:
    kind, *paths = arguments or ("",)
    convert, count = CONVERTERS.get(kind, (None, 0))
    if convert is None or len(paths) != count + 1 or Path(paths[-1]).suffix != ".safetensors":
        raise SystemExit(__doc__)
    made: Any = convert(*map(Path, paths[:-1]))
    model, extra = made if isinstance(made, tuple) else (made, None)
    write_arrays(Path(paths[-1]), model, extra)


if __name__ == "__main__":
    main(sys.argv[1:])
