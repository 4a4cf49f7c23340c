"""Licensed face models -> the product's own: files as their publishers give them, read without running code.

    python -m CONVERTERS bfm BFM_model_front.mat OUT.safetensors
    python -m CONVERTERS flame generic_model.pkl landmark_embedding.npy OUT.safetensors
    python -m CONVERTERS tddfa bfm_noneck_v3.pkl tri.pkl param_mean_std_62d_120x120.pkl OUT
    python -m CONVERTERS lsfm all_all_all.mat sampler1035ver.pkl MESH.npz OUT.safetensors

where CONVERTERS is models.perception.head.converters; then `reenact weights import bfm_deep3d
OUT.safetensors`, or flame_model, bfm_3ddfa, lsfm. What is written is the arrays of a MorphableModel, text as
UTF-8 bytes, so that the weights' registry keeps and pins it like any file of tensors.

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
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from models.errors import InvalidFile
from models.perception.array_unpickler import read_pickle, to_array
from models.perception.file_arrays import FileArrays
from models.perception.head.morphable import ARRAY_NDIMS, MorphableModel, vertex_normals

FLAME_SHAPE_SIZE, FLAME_EXP_SIZE = 100, 50  # of 300 and 100
FLAME_EXP_START = 300
JAW_JOINT, JAW_NAMES = 2, ("jaw_x", "jaw_y", "jaw_z")
JAW_BOUND = (0.6, 0.3, 0.3)  # radians
LSFM_ARRAYS = ("id_basis", "exp_basis", "mean")
VERTEX_LANDMARK_BARYCENTRICS = np.tile(np.array([1, 0, 0], np.float32), (68, 1))
REQUIRED_MORPHABLE_MODEL_FIELDS = (
    "name",
    "license",
    "mean",
    "id_basis",
    "exp_basis",
    "faces",
    "lm68_index",
    "lm68_weight",
)
_TEXTS = ("name", "license")
_NAMES = ("id_names", "exp_names")
_REGION = "region_"


# --- files of arrays ----------------------------------------------------------------------------------------
def write_morphable_model(
    path: Path, model: MorphableModel, extra: Mapping[str, np.ndarray] | None = None
) -> None:
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


def read_safetensors_arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InvalidFile(f"{path.name} is not a whole safetensors file: {error}") from error


def read_morphable_model(path: Path) -> MorphableModel:
    """What `write_morphable_model` wrote; arrays that are not the model's are left aside. InvalidFile names
    the file and the field that is missing or wrong.
    """
    file = FileArrays(
        path.name, "a model as models.perception.head.converters writes it", read_safetensors_arrays(path)
    )
    file.require_fields(*REQUIRED_MORPHABLE_MODEL_FIELDS)
    try:
        return _model_of(file)
    except (ValueError, InvalidFile) as error:
        raise InvalidFile(
            f"{path.name}: {error}. Convert the publisher's files again and import that"
        ) from error


def _model_of(file: FileArrays) -> MorphableModel:
    arrays = file.found
    for name, rank in ARRAY_NDIMS.items():  # their lengths are compared with one another
        if name in arrays and arrays[name].ndim != rank:
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {rank} dimensions")
    known = {one.name for one in fields(MorphableModel)} - {"regions"}
    values: dict[str, Any] = {name: array for name, array in arrays.items() if name in known}
    for name in (*_TEXTS, *_NAMES):
        if name in values:
            text = values[name].tobytes().decode()
            values[name] = text if name in _TEXTS else tuple(text.split("\n"))
    if "metres_per_unit" in values:
        values["metres_per_unit"] = float(values["metres_per_unit"].item())
    regions = {n.removeprefix(_REGION): array for n, array in arrays.items() if n.startswith(_REGION)}
    return MorphableModel(regions=regions, **values)


def load_bfm_model(weights: Mapping[str, Path]) -> MorphableModel:
    return read_morphable_model(weights["bfm_deep3d"])


def load_flame_model(weights: Mapping[str, Path]) -> MorphableModel:
    return read_morphable_model(weights["flame_model"])


def load_3ddfa_morphable_model(weights: Mapping[str, Path]) -> MorphableModel:
    return read_morphable_model(weights["bfm_3ddfa"])


def load_lsfm_model(weights: Mapping[str, Path]) -> MorphableModel:
    return read_morphable_model(weights["lsfm"])


# --- Basel face model ---------------------------------------------------------------------------------------
def convert_bfm(path: Path) -> MorphableModel:
    """Deep3DFaceRecon's BFM_model_front.mat (made once from the 2009 model and FaceWarehouse's
    expressions)."""
    wanted = ("meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "keypoints")
    found = _matlab(path, (*wanted, "skinmask", "frontmask2_idx"))
    file = FileArrays(path.name, "Deep3DFaceRecon's model", found)
    file.require_fields(*wanted)
    mean = file.read_floats("meanshape", (None, 3), folded=True)
    mean -= mean.mean(0)
    vertices = len(mean)

    def basis(name: str, components: int | None) -> np.ndarray:
        flat = file.read_floats(name, (3 * vertices, components)).astype(np.float32)
        return flat.reshape(vertices, 3, -1)

    regions = {}
    if "skinmask" in found:
        regions["skin"] = file.read_floats("skinmask", (vertices,), folded=True) > 0.5
    if "frontmask2_idx" in found:
        regions["front"] = np.zeros(vertices, bool)
        regions["front"][file.read_index_array("frontmask2_idx", (None,), vertices, first=1, folded=True)] = (
            True
        )
    return MorphableModel(
        name="bfm_deep3d",
        license="Basel Face Model 2009: registration, no commercial use",
        mean=mean.astype(np.float32),
        id_basis=basis("idBase", 80),
        exp_basis=basis("exBase", 64),
        faces=orient_faces_outward(
            mean, file.read_index_array("tri", (None, 3), vertices, first=1).astype(np.int32)
        ),
        lm68_index=_thrice(file.read_index_array("keypoints", (68,), vertices, first=1, folded=True)),
        lm68_weight=VERTEX_LANDMARK_BARYCENTRICS,
        tex_mean=file.read_floats("meantex", (vertices, 3), folded=True).astype(np.float32) / 255,
        tex_basis=basis("texBase", None) / np.float32(255),
        regions=regions,
        metres_per_unit=0.1,
    )


def orient_faces_outward(mean: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces (F,3) turned, all of them if any, so that they are counter-clockwise seen from outside."""
    away = (vertex_normals(mean, faces) * (mean - mean.mean(0))).sum()
    return faces if away >= 0 else np.ascontiguousarray(faces[:, ::-1])


def convert_3ddfa(model_path: Path, faces_path: Path, statistics_path: Path) -> MorphableModel:
    """3DDFA_V2's bfm_noneck_v3.pkl (u, w_shp, w_exp, keypoints: micrometres, vertex by vertex), its tri.pkl
    (3,F), and the deviations of its coefficients: 12 of the pose, 40 of shape, 10 of expression."""
    parts = _named(model_path, ("u", "w_shp", "w_exp", "keypoints"), "3DDFA_V2's model")
    statistics = _named(statistics_path, ("std",), "3DDFA_V2's statistics")
    sigma = statistics.read_floats("std", (62,), folded=True)
    with faces_path.open("rb") as stream:
        stored = to_array(read_pickle(stream, faces_path.name))
    mean = parts.read_floats("u", (None, 3), folded=True) * 1e-5
    mean -= mean.mean(0)
    vertices = len(mean)

    def basis(name: str, sigma: np.ndarray) -> np.ndarray:
        flat = parts.read_floats(name, (3 * vertices, None))
        if flat.shape[1] < len(sigma):
            raise parts.field_error(name, f"has {flat.shape[1]} components", f"{len(sigma)} or more")
        return (flat[:, : len(sigma)] * sigma * 1e-5).reshape(vertices, 3, -1).astype(np.float32)

    triangles = FileArrays(faces_path.name, "3DDFA_V2's triangles", {"the array": stored})
    corners = triangles.read_index_array("the array", (3, None), vertices).T.astype(np.int32)
    coordinates = parts.read_index_array("keypoints", (68, 3), 3 * vertices, folded=True)  # not vertices
    return MorphableModel(
        name="bfm_3ddfa",
        license="Basel Face Model 2009: registration, no commercial use",
        mean=mean.astype(np.float32),
        id_basis=basis("w_shp", sigma[12:52]),
        exp_basis=basis("w_exp", sigma[52:]),
        faces=orient_faces_outward(mean, np.ascontiguousarray(corners)),
        lm68_index=_thrice(coordinates[:, 0] // 3),
        lm68_weight=VERTEX_LANDMARK_BARYCENTRICS,
        metres_per_unit=0.1,
    )


def convert_lsfm(model_path: Path, sampler_path: Path, mesh_path: Path) -> MorphableModel:
    """all_all_all.mat (struct fmod: id_basis (3N,157), exp_basis (3N,28), mean (3N)), sampler1035ver.pkl
    (idxs: the vertices that dense landmarks stand for), and the mesh (see the table above)."""
    fmod = _matlab(model_path, ("fmod",)).get("fmod")
    if fmod is None or fmod.dtype.names is None or fmod.size != 1:
        raise InvalidFile(f"{model_path.name} holds no fmod, one struct of {', '.join(LSFM_ARRAYS)}")
    found = {name: fmod.reshape(-1)[0][name] for name in fmod.dtype.names}
    file = FileArrays(model_path.name, "LSFM's model as HeadGAN has it", found)
    file.require_fields(*LSFM_ARRAYS)
    mean = file.read_floats("mean", (None, 3), folded=True)
    mean -= mean.mean(0)
    vertices = len(mean)
    bases = [
        file.read_floats(name, (3 * vertices, None)).astype(np.float32).reshape(vertices, 3, -1)
        for name in ("id_basis", "exp_basis")
    ]
    mesh = _named(mesh_path, ("faces", "lm68"), "LSFM's mesh")
    dense = _named(sampler_path, ("idxs",), "HeadGAN's sampler")
    return MorphableModel(
        name="lsfm",
        license="LSFM: registration, not to be passed on",
        mean=mean.astype(np.float32),
        id_basis=bases[0],
        exp_basis=bases[1],
        faces=orient_faces_outward(
            mean, mesh.read_index_array("faces", (None, 3), vertices).astype(np.int32)
        ),
        lm68_index=_thrice(mesh.read_index_array("lm68", (68,), vertices, folded=True)),
        lm68_weight=VERTEX_LANDMARK_BARYCENTRICS,
        id_bound=np.full(bases[0].shape[-1], 0.8, np.float32),
        exp_bound=np.full(bases[1].shape[-1], 1.5, np.float32),
        dense_index=dense.read_index_array("idxs", (None,), vertices, folded=True).astype(np.int32),
    )


def _matlab(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the variables that a MATLAB 5 file holds."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with path.open("rb") as stream:
            return loadmat(stream, variable_names=list(names))
    # NotImplementedError: what scipy says of MATLAB 7.3 files, which are HDF5.
    except (MatReadError, NotImplementedError, ValueError, TypeError, zlib.error) as error:
        raise InvalidFile(f"{path.name} is not a MATLAB 5 file: {str(error).splitlines()[0]}") from error


def _thrice(corners: np.ndarray) -> np.ndarray:
    """Landmarks that are vertices (68,) -> lm68_index (68,3); their weights are
    VERTEX_LANDMARK_BARYCENTRICS."""
    return np.repeat(corners.reshape(-1)[:, None], 3, axis=1).astype(np.int32)


# --- FLAME --------------------------------------------------------------------------------------------------
def convert_flame(model_path: Path, embedding_path: Path) -> tuple[MorphableModel, dict[str, np.ndarray]]:
    """generic_model.pkl (or an npz of the same arrays) and landmark_embedding.npy -> the model, and what
    DECA needs beside it: root (3,), root_basis (3,150), origin (3,)."""
    parts = read_flame(model_path)
    template, shapes, joints = (parts[name] for name in ("v_template", "shapedirs", "J_regressor"))
    corners = parts["f"].astype(np.int32)
    origin = template.mean(0)
    id_basis = shapes[..., :FLAME_SHAPE_SIZE]
    exp_basis = shapes[..., FLAME_EXP_START : FLAME_EXP_START + FLAME_EXP_SIZE]
    found = read_landmark_embedding(embedding_path, len(corners))
    names = tuple(f"expression_{i:02d}" for i in range(FLAME_EXP_SIZE))
    model = MorphableModel(
        name="flame",
        license="FLAME 2020: registration, see its licence",
        mean=(template - origin).astype(np.float32),
        id_basis=np.ascontiguousarray(id_basis, np.float32),
        exp_basis=np.concatenate([exp_basis, jaw_basis(parts)], axis=-1).astype(np.float32),
        faces=orient_faces_outward(template, corners),
        lm68_index=corners[found["full_lmk_faces_idx"]],
        lm68_weight=found["full_lmk_bary_coords"].astype(np.float32),
        exp_bound=np.r_[np.full(FLAME_EXP_SIZE, 3.0), JAW_BOUND].astype(np.float32),
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


def jaw_basis(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """(V,3,3): what a radian of the jaw about x, y, z does to the vertices, at rest: the turn about its
    joint, and the correctives that FLAME drives by the rotation matrix."""
    template, weights = parts["v_template"], parts["weights"]
    joint = parts["J_regressor"][JAW_JOINT] @ template
    turns = np.array(
        [
            [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
            [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
            [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
        ],
        float,
    )  # d rotation / d angle, (axis,3,3)
    moved = np.einsum("v,kcd,vd->vck", weights[:, JAW_JOINT], turns, template - joint)
    drives = parts["posedirs"][..., 9 * (JAW_JOINT - 1) : 9 * JAW_JOINT]  # the root drives none
    return moved + np.einsum("vcr,kr->vck", drives, turns.reshape(3, 9))


FLAME_ARRAYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")


def read_flame(path: Path) -> dict[str, np.ndarray]:
    """The arrays of generic_model.pkl, or of an npz: float64, f int64."""
    file = _named(path, FLAME_ARRAYS, "FLAME's generic_model")
    vertices = len(template := file.read_floats("v_template", (None, 3)))
    shapes = {
        "shapedirs": (vertices, 3, 400), "posedirs": (vertices, 3, 36), "J_regressor": (5, vertices),
        "weights": (vertices, 5),
    }  # fmt: skip
    found = {name: file.read_floats(name, shape) for name, shape in shapes.items()}
    return found | {"v_template": template, "f": file.read_index_array("f", (None, 3), vertices)}


def read_landmark_embedding(path: Path, faces: int) -> dict[str, np.ndarray]:
    """full_lmk_faces_idx (68,) and full_lmk_bary_coords (68,3) of DECA's landmark_embedding.npy, for a mesh
    of so many faces.
    """
    index, weights = "full_lmk_faces_idx", "full_lmk_bary_coords"
    file = _named(path, (index, weights), "DECA's landmark_embedding")
    found = {
        index: file.read_index_array(index, (68,), faces, folded=True),
        weights: file.read_floats(weights, (68, 3), folded=True),
    }
    if not np.allclose(found[weights].sum(1), 1, atol=1e-4):
        raise file.field_error(weights, "has rows that sum to other than 1", "barycentric coordinates")
    return found


def _named(path: Path, names: Sequence[str], what: str) -> FileArrays:
    """These arrays of an npz, a pickle, or an npy whose one object is a dict."""
    try:
        found = _opened(path)
    except (ValueError, EOFError, BadZipFile, InvalidFile) as error:
        raise InvalidFile(f"{path.name} cannot be read as {what}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidFile(f"{path.name} holds a {type(found).__name__}, expected a dict of arrays")
    file = FileArrays(path.name, what, found)
    file.require_fields(*names)
    arrays = {}
    for name in names:
        try:
            arrays[name] = to_array(found[name])
        except ValueError as error:
            raise InvalidFile(f"{path.name}: {name}: {error}") from error
    return FileArrays(path.name, what, arrays)


def _opened(path: Path) -> Any:
    with path.open("rb") as stream:
        if path.suffix == ".npz":
            if not is_zipfile(stream):
                raise ValueError("it is no zip archive")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if path.suffix == ".npy":
            version = np.lib.format.read_magic(stream)
            later = np.lib.format.read_array_header_2_0
            (np.lib.format.read_array_header_1_0 if version == (1, 0) else later)(stream)
        return read_pickle(stream, path.name)


MORPHABLE_MODEL_CONVERTERS = {
    "bfm": (convert_bfm, 1),
    "flame": (convert_flame, 2),
    "tddfa": (convert_3ddfa, 3),
    "lsfm": (convert_lsfm, 3),
}
"""Name -> converter and how many files it reads."""


def main(arguments: list[str]) -> None:
    kind, *paths = arguments or ("",)
    convert, count = MORPHABLE_MODEL_CONVERTERS.get(kind, (None, 0))
    if convert is None or len(paths) != count + 1 or Path(paths[-1]).suffix != ".safetensors":
        raise SystemExit(__doc__)
    made: Any = convert(*map(Path, paths[:-1]))
    model, extra = made if isinstance(made, tuple) else (made, None)
    write_morphable_model(Path(paths[-1]), model, extra)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (InvalidFile, OSError) as error:
        sys.exit(f"error: {error}")
