import pickle
import sys
import types

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from models.errors import InvalidFile
from models.perception.head import converters
from models.perception.head.landmark_fit import rotation_exp
from models.perception.head.morphable import MorphableModel


@pytest.fixture
def flame_files(tmp_path, monkeypatch, shape_files):
    """generic_model.pkl as its publisher writes it (chumpy boxes, a sparse matrix, protocol 2) and DECA's
    embedding, with torch tensors in it."""
    import torch

    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    arrays = shape_files.flame_arrays()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", chumpy)
        patch.setitem(sys.modules, "chumpy.ch", ch)
        boxed = ch.Ch()
        boxed.x = np.asfortranarray(arrays["shapedirs"])
        stored = arrays | {"shapedirs": boxed, "J_regressor": csc_matrix(arrays["J_regressor"])}
        (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(stored, protocol=2))
    points = shape_files.flame_embedding(arrays) | {
        "dynamic_lmk_faces_idx": torch.zeros(79, 17, dtype=torch.long)
    }
    np.save(tmp_path / "landmark_embedding.npy", np.array(points, dtype=object))
    return tmp_path / "generic_model.pkl", tmp_path / "landmark_embedding.npy"


def decode(arrays, shape, exp, jaw):
    """FLAME itself, the jaw turned and all else still: vertices, root joint."""
    betas = np.zeros(400)
    betas[:100], betas[300:350] = shape, exp
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["J_regressor"] @ shaped
    rotation = rotation_exp(np.asarray(jaw, float)[None])[0]
    feature = np.zeros(36)
    feature[9:18] = (rotation - np.eye(3)).ravel()
    posed = shaped + arrays["posedirs"] @ feature
    moved = (posed - joints[2]) @ rotation.T + joints[2] - posed
    return posed + arrays["weights"][:, 2:3] * moved, joints[0]


def test_flame_comes_out_of_its_pickle_as_it_decodes(flame_files, shape_files):
    model, extra = converters.convert_flame(*flame_files)
    arrays = shape_files.flame_arrays()
    rng = np.random.default_rng(0)
    shape, exp = rng.normal(size=100), rng.normal(size=50)
    vertices, root = decode(arrays, shape, exp, [0, 0, 0])
    found = model.shape(shape, np.r_[exp, 0, 0, 0])
    np.testing.assert_allclose(found + extra["origin"], vertices, atol=1e-6)
    joint = extra["root"] + extra["root_basis"] @ np.r_[shape, exp]
    np.testing.assert_allclose(joint, root, atol=1e-6)


def test_the_jaw_is_its_tangent(flame_files, shape_files):
    model, extra = converters.convert_flame(*flame_files)
    still = model.shape(np.zeros(100), np.zeros(53))
    for axis in range(3):
        jaw = np.zeros(3)
        jaw[axis] = 1e-3
        vertices, _ = decode(shape_files.flame_arrays(), np.zeros(100), np.zeros(50), jaw)
        moved = model.shape(np.zeros(100), np.r_[np.zeros(50), jaw]) - still
        np.testing.assert_allclose(moved, vertices - extra["origin"] - still, atol=1e-7)
    vertices, _ = decode(shape_files.flame_arrays(), np.zeros(100), np.zeros(50), [0.3, 0, 0])
    off = np.linalg.norm(
        model.shape(np.zeros(100), np.r_[np.zeros(50), 0.3, 0, 0]) + extra["origin"] - vertices, axis=1
    )
    assert off.max() < 0.005  # metres


def test_flames_landmarks_are_the_embeddings(flame_files, shape_files):
    model, extra = converters.convert_flame(*flame_files)
    arrays = shape_files.flame_arrays()
    points = shape_files.flame_embedding(arrays)
    corners = arrays["v_template"][arrays["f"][points["full_lmk_faces_idx"][0]].astype(int)]
    expected = (corners * points["full_lmk_bary_coords"][0][..., None]).sum(1)
    np.testing.assert_allclose(model.landmarks(model.mean) + extra["origin"], expected, atol=1e-6)


def test_faces_look_outward(flame_files):
    model, _ = converters.convert_flame(*flame_files)
    assert (model.normals(model.mean)[:, 2] > 0).mean() > 0.9


def test_an_npz_of_the_same_arrays_gives_the_same_model(flame_files, tmp_path, shape_files):
    arrays = shape_files.flame_arrays()
    np.savez(tmp_path / "m.npz", **arrays)
    np.savez(tmp_path / "e.npz", **shape_files.flame_embedding(arrays))
    one, _ = converters.convert_flame(*flame_files)
    other, _ = converters.convert_flame(tmp_path / "m.npz", tmp_path / "e.npz")
    assert (one.exp_basis == other.exp_basis).all()
    assert (one.faces == other.faces).all()


def test_a_written_model_is_read_back_through_the_weights_import(flame_files, tmp_path):
    from storage.weights_import import convert_checkpoint_to_safetensors

    out = tmp_path / "flame.safetensors"
    converters.main(["flame", *map(str, flame_files), str(out)])
    convert_checkpoint_to_safetensors(out, tmp_path / "imported.safetensors")
    model = converters.load_flame_model({"flame_model": tmp_path / "imported.safetensors"})
    expected, _ = converters.convert_flame(*flame_files)
    assert isinstance(model, MorphableModel)
    assert (model.id_basis == expected.id_basis).all()
    assert (model.name, model.exp_names, model.metres_per_unit) == ("flame", expected.exp_names, 1.0)
    assert model.exp_names[-3:] == ("jaw_x", "jaw_y", "jaw_z")


def test_a_pickle_of_other_things_says_what_lacks(tmp_path, shape_files):
    arrays = shape_files.flame_arrays()
    del arrays["posedirs"]
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(arrays))
    with pytest.raises(InvalidFile, match="no posedirs"):
        converters.read_flame(tmp_path / "m.pkl")
    (tmp_path / "m.pkl").write_bytes(b"not a pickle")
    with pytest.raises(InvalidFile, match="not a pickle of arrays"):
        converters.read_flame(tmp_path / "m.pkl")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InvalidFile, match="holds a list"):
        converters.read_flame(tmp_path / "m.pkl")


@pytest.fixture
def bfm_file(tmp_path, shape_files):
    savemat(tmp_path / "BFM_model_front.mat", shape_files.bfm_arrays())
    return tmp_path / "BFM_model_front.mat"


def test_the_basel_model_gives_deep3ds_golden_shape(bfm_file, shape_files):
    """shape_out of deep3d_parametric_face_model, coefficients by its formula."""
    model = converters.convert_bfm(bfm_file)
    coefficients = 0.5 * shape_files.wave((2, 257), 0.9)
    found = model.shape(coefficients[:, :80], coefficients[:, 80:144])
    first = [
        -0.2843124270439148, -1.1165827512741089, -0.5040456056594849, 1.2747292518615723, -0.176162451505661,
        1.7008204460144043, 0.11021775007247925, -0.3464348614215851, 0.5248746275901794, -1.2800334692001343,
        1.09282386302948, 0.5331637859344482, 0.9678173661231995, 2.127634048461914, -0.07843762636184692,
        1.1850309371948242,
    ]  # fmt: skip
    np.testing.assert_allclose(found.ravel()[:16], first, atol=2e-6)
    assert np.linalg.norm(found) == pytest.approx(8.87670982871037, rel=1e-6)


def test_the_basel_models_tables_count_from_zero(bfm_file):
    model = converters.convert_bfm(bfm_file)
    assert model.lm68_index[:13, 0].tolist() == [*range(12), 0]
    assert model.regions["front"].nonzero()[0].tolist() == [0, 11]
    assert model.regions["skin"].all()
    assert 0 < model.tex_mean.min() < model.tex_mean.max() < 1
    assert (model.n_id, model.n_exp, model.metres_per_unit) == (80, 64, 0.1)


def tddfa_arrays():
    """Of bfm_noneck_v3.pkl, tri.pkl and param_mean_std.pkl, at 12 vertices."""
    rng = np.random.default_rng(0)
    corner = np.arange(68) % 12
    model = {
        "u": rng.normal(size=(36, 1)) * 1e5,
        "w_shp": rng.normal(size=(36, 199)),
        "w_exp": rng.normal(size=(36, 29)),
        "keypoints": (3 * corner[:, None] + np.arange(3)).ravel(),
    }
    sigma = np.abs(rng.normal(size=62)).astype(np.float32) * 1e4
    triangles = rng.permuted(np.tile(np.arange(12), (8, 1)), axis=1)[:, :3].T  # (3,F)
    return model, triangles, {"mean": sigma, "std": sigma}


def tddfa_files(folder, model, triangles, statistics):
    files = [folder / name for name in ("bfm_noneck_v3.pkl", "tri.pkl", "param_mean_std.pkl")]
    for path, stored in zip(files, (model, triangles, statistics), strict=True):
        path.write_bytes(pickle.dumps(stored))
    return files


def test_3ddfas_pickles_give_its_shape_in_sigmas(tmp_path):
    model, triangles, statistics = tddfa_arrays()
    files, sigma = tddfa_files(tmp_path, model, triangles, statistics), statistics["std"]
    converters.main(["tddfa", *map(str, files), str(tmp_path / "m.safetensors")])
    found = converters.load_3ddfa_morphable_model({"bfm_3ddfa": tmp_path / "m.safetensors"})
    rng, mean = np.random.default_rng(1), model["u"]
    id, e = rng.normal(size=40), rng.normal(size=10)
    shaped = model["w_shp"][:, :40] @ (sigma[12:52] * id)[:, None]
    whole = mean + shaped + model["w_exp"][:, :10] @ (sigma[52:] * e)[:, None]
    expected = whole.reshape(3, -1, order="F").T * 1e-5  # as the publisher's code folds it
    np.testing.assert_allclose(found.shape(id, e), expected - mean.reshape(-1, 3).mean(0) * 1e-5, atol=1e-4)
    assert (found.n_id, found.n_exp) == (40, 10)
    assert (found.lm68_index[:, 0] == np.arange(68) % 12).all()


def lsfm_arrays():
    """Of all_all_all.mat, sampler1035ver.pkl and the mesh, at 12 vertices."""
    rng = np.random.default_rng(0)
    fmod = {
        "id_basis": rng.normal(size=(36, 157)),
        "exp_basis": rng.normal(size=(36, 28)),
        "mean": rng.normal(size=(36, 1)),
    }
    mesh = {"faces": np.array([[0, 1, 2], [2, 1, 3]]), "lm68": np.arange(68) % 12}
    return fmod, {"idxs": [3, 1, 11]}, mesh


def lsfm_files(folder, fmod, sampler, mesh):
    files = (folder / "all_all_all.mat", folder / "sampler1035ver.pkl", folder / "mesh.npz")
    savemat(files[0], {"fmod": fmod})
    files[1].write_bytes(pickle.dumps(sampler, protocol=2))
    np.savez(files[2], **mesh)
    return files


def test_lsfm_keeps_its_bounds_and_dense_points(tmp_path):
    arrays, sampler, mesh = lsfm_arrays()
    files = lsfm_files(tmp_path, arrays, sampler, mesh)
    converters.main(["lsfm", *map(str, files), str(tmp_path / "m.safetensors")])
    found = converters.load_lsfm_model({"lsfm": tmp_path / "m.safetensors"})
    id = np.random.default_rng(1).normal(size=157)
    whole = (arrays["mean"] + arrays["id_basis"] @ id[:, None]).reshape(-1, 3)
    np.testing.assert_allclose(
        found.shape(id, np.zeros(28)), whole - arrays["mean"].reshape(-1, 3).mean(0), atol=1e-4
    )
    assert found.dense_index.tolist() == [3, 1, 11]
    assert (found.id_bound == np.float32(0.8)).all()
    assert (found.exp_bound == 1.5).all()
    savemat(tmp_path / "other.mat", {"x": arrays})
    with pytest.raises(InvalidFile, match="holds no fmod"):
        converters.convert_lsfm(tmp_path / "other.mat", *files[1:])


def test_a_file_that_is_no_basel_model_is_refused(tmp_path):
    savemat(tmp_path / "m.mat", {"x": np.ones(3)})
    with pytest.raises(InvalidFile, match="no meanshape"):
        converters.convert_bfm(tmp_path / "m.mat")
    (tmp_path / "n.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF")
    with pytest.raises(InvalidFile, match="not a MATLAB 5 file"):
        converters.convert_bfm(tmp_path / "n.mat")
    (tmp_path / "n.mat").write_bytes(b"cut off")
    with pytest.raises(InvalidFile, match=r"n\.mat is not a MATLAB 5 file: Mat file appears to be truncated"):
        converters.convert_lsfm(tmp_path / "n.mat", tmp_path / "a.pkl", tmp_path / "b.npz")


def test_other_safetensors_are_no_model(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(InvalidFile, match=r"x\.safetensors: no name, license, mean, .*found a"):
        converters.load_bfm_model({"bfm_deep3d": tmp_path / "x.safetensors"})


# --- files that are not what they should be -----------------------------------------------------------------
def tddfa_broken(folder, which, **changes):
    parts = list(tddfa_arrays())
    parts[which] = changes["tri"] if "tri" in changes else parts[which] | changes
    converters.convert_3ddfa(*tddfa_files(folder, *parts))


def lsfm_broken(folder, which, **changes):
    parts = list(lsfm_arrays())
    parts[which] = {name: v for name, v in (parts[which] | changes).items() if v is not None}
    converters.convert_lsfm(*lsfm_files(folder, *parts))


def bfm_broken(folder, shape_files, **changes):
    arrays = {name: v for name, v in (shape_files.bfm_arrays() | changes).items() if v is not None}
    savemat(folder / "BFM_model_front.mat", arrays)
    converters.convert_bfm(folder / "BFM_model_front.mat")


def flame_broken(folder, shape_files, **changes):
    arrays = shape_files.flame_arrays()
    points = shape_files.flame_embedding(arrays)
    for name, value in changes.items():
        (points if name in points else arrays)[name] = value
    np.savez(folder / "model.npz", **arrays)
    np.savez(folder / "embedding.npz", **points)
    converters.convert_flame(folder / "model.npz", folder / "embedding.npz")


NAN = np.full((36, 157), np.nan)
LSFM_CRIMES = [
    (0, {"exp_basis": None}, r"all_all_all\.mat: no exp_basis; expected LSFM.*found id_basis, mean"),
    (0, {"mean": np.ones((35, 1))}, r"all_all_all\.mat: mean has shape \(35, 1\), expected \(any, 3\)"),
    (0, {"id_basis": np.ones((33, 157))}, r"id_basis has shape \(33, 157\), expected \(36, any\)"),
    (0, {"id_basis": NAN}, r"id_basis holds 5652 of 5652 numbers not finite, expected all finite"),
    (0, {"mean": "face"}, r"mean is of type <U4, expected numbers"),
    (1, {"idxs": [3, 12]}, r"sampler1035ver\.pkl: idxs runs from 3 to 12, expected 0 to 11"),
    (2, {"lm68": None}, r"mesh\.npz: no lm68; expected LSFM's mesh, found faces"),
    (2, {"lm68": np.arange(67) % 12}, r"mesh\.npz: lm68 has shape \(67,\), expected \(68,\)"),
    (2, {"faces": np.array([[0, 1, -1]])}, r"mesh\.npz: faces runs from -1 to 1, expected 0 to 11"),
    (2, {"faces": np.zeros((0, 3))}, r"faces has shape \(0, 3\), expected \(any, 3\)"),
]
TDDFA_CRIMES = [
    (0, {"w_exp": np.ones((36, 9))}, r"bfm_noneck_v3\.pkl: w_exp has 9 components, expected 10 or more"),
    (0, {"u": np.full((36, 1), np.inf)}, r"u holds 36 of 36 numbers not finite"),
    (0, {"keypoints": np.full(204, 36)}, r"keypoints runs from 36 to 36, expected 0 to 35"),
    (1, {"tri": np.zeros((4, 5), int)}, r"tri\.pkl: the array has shape \(4, 5\), expected \(3, any\)"),
    (1, {"tri": np.full((3, 5), 12)}, r"tri\.pkl: the array runs from 12 to 12, expected 0 to 11"),
    (2, {"std": np.ones(60)}, r"param_mean_std\.pkl: std has shape \(60,\), expected \(62,\)"),
]
BFM_CRIMES = [
    ({"tri": None}, r"BFM_model_front\.mat: no tri; expected Deep3DFaceRecon's model"),
    ({"idBase": np.ones((36, 79))}, r"idBase has shape \(36, 79\), expected \(36, 80\)"),
    ({"tri": np.array([[0, 1, 2]])}, r"tri runs from 0 to 2, expected 1 to 12"),
    ({"tri": np.array([[1, 2, 2.5]])}, r"tri holds fractions, expected whole numbers"),
    ({"keypoints": np.full((1, 68), 13)}, r"keypoints runs from 13 to 13, expected 1 to 12"),
    ({"frontmask2_idx": np.array([[13]])}, r"frontmask2_idx runs from 13 to 13, expected 1 to 12"),
    ({"texBase": np.full((36, 80), np.nan)}, r"texBase holds 2880 of 2880 numbers not finite"),
]
FLAME_CRIMES = [
    ({"shapedirs": np.ones((60, 3, 300))}, r"model\.npz: shapedirs has shape \(60, 3, 300\), expected"),
    ({"posedirs": np.ones((60, 3, 9))}, r"posedirs has shape \(60, 3, 9\), expected \(60, 3, 36\)"),
    ({"v_template": np.full((60, 3), np.nan)}, r"v_template holds 180 of 180 numbers not finite"),
    ({"f": np.array([[0, 1, 60]])}, r"model\.npz: f runs from 0 to 60, expected 0 to 59"),
    ({"full_lmk_faces_idx": np.full((1, 68), 999)}, r"embedding\.npz: full_lmk_faces_idx runs from 999"),
    ({"full_lmk_bary_coords": np.ones((1, 67, 3))}, r"full_lmk_bary_coords has shape \(1, 67, 3\)"),
    ({"full_lmk_bary_coords": np.ones((1, 68, 3))}, r"has rows that sum to other than 1"),
]


@pytest.mark.parametrize(("which", "changes", "told"), LSFM_CRIMES)
def test_a_wrong_lsfm_is_told_by_file_and_field(tmp_path, which, changes, told):
    with pytest.raises(InvalidFile, match=told):
        lsfm_broken(tmp_path, which, **changes)


@pytest.mark.parametrize(("which", "changes", "told"), TDDFA_CRIMES)
def test_a_wrong_3ddfa_is_told_by_file_and_field(tmp_path, which, changes, told):
    with pytest.raises(InvalidFile, match=told):
        tddfa_broken(tmp_path, which, **changes)


@pytest.mark.parametrize(("changes", "told"), BFM_CRIMES)
def test_a_wrong_basel_model_is_told_by_file_and_field(tmp_path, shape_files, changes, told):
    with pytest.raises(InvalidFile, match=told):
        bfm_broken(tmp_path, shape_files, **changes)


@pytest.mark.parametrize(("changes", "told"), FLAME_CRIMES)
def test_a_wrong_flame_is_told_by_file_and_field(tmp_path, shape_files, changes, told):
    with pytest.raises(InvalidFile, match=told):
        flame_broken(tmp_path, shape_files, **changes)


def test_every_error_says_what_to_do(tmp_path):
    with pytest.raises(InvalidFile, match="Is it HeadGAN's sampler, whole and unchanged"):
        lsfm_broken(tmp_path, 1, idxs=[99])


CONVERTED = {
    "faces": (lambda a: a.pop("faces"), "no faces; expected a model as"),
    "mean": (lambda a: a.update(mean=np.ones(12, np.float32)), r"mean has shape \(12,\), expected 2 dim"),
    "dtype": (lambda a: a.update(id_basis=a["id_basis"].astype(np.float64)), "id_basis is float64"),
    "nan": (lambda a: a["exp_basis"].fill(np.nan), "exp_basis holds a NaN"),
    "landmarks": (lambda a: a["lm68_index"].fill(12), "lm68_index runs from 12 to 12; there are 12"),
    "dense": (lambda a: a["dense_index"].fill(12), "dense_index runs from 12 to 12; there are 12"),
}


@pytest.mark.parametrize("crime", CONVERTED)
def test_a_wrong_converted_model_is_told_by_file_and_field(tmp_path, crime):
    from safetensors.numpy import save_file

    converters.write_morphable_model(
        tmp_path / "m.safetensors", converters.convert_lsfm(*lsfm_files(tmp_path, *lsfm_arrays()))
    )
    arrays = converters.read_safetensors_arrays(tmp_path / "m.safetensors")
    change, told = CONVERTED[crime]
    change(arrays)
    save_file(arrays, tmp_path / "m.safetensors")
    with pytest.raises(InvalidFile, match=rf"^m\.safetensors: .*{told}"):
        converters.load_lsfm_model({"lsfm": tmp_path / "m.safetensors"})


@pytest.mark.parametrize("name", ["mesh.npz", "mesh.npy", "mesh.pkl"])
def test_a_file_of_something_else_is_told_by_name(tmp_path, name):
    model, sampler, _ = lsfm_files(tmp_path, *lsfm_arrays())
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(InvalidFile, match=name):
        converters.convert_lsfm(model, sampler, tmp_path / name)
