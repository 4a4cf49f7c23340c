import io
from dataclasses import replace
from zipfile import ZipFile

import numpy as np
import pytest

from models.errors import InvalidFile
from models.perception.head.default_head import get_analytic_head
from models.perception.head.morphable import MorphableModel

# iBUG 68: the landmark on the other side of the face
MIRROR = np.r_[
    16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40, 54:47:-1, 59:54:-1, 64:59:-1,
    67:64:-1,
]  # fmt: skip
CRIMES = {
    "mean": lambda m: m.mean.astype(np.float64),
    "id_basis": lambda m: m.id_basis[:5],
    "faces": lambda m: m.faces + np.int32(len(m.mean)),
    "lm68_weight": lambda m: m.lm68_weight * np.float32(2),
    "exp_bound": lambda m: np.ones(2, np.float32),
    "exp_names": lambda m: ("jaw",),
    "regions": lambda m: {"skin": np.ones(3, bool)},
    "tex_mean": lambda m: np.full_like(m.tex_mean, np.nan),
    "dense_index": lambda m: m.dense_index[:5],
    "dense_weight": lambda m: m.dense_weight * np.float32(2),
    "dense_angles": lambda m: np.zeros(2, np.float32),
}


@pytest.fixture(scope="module")
def head() -> MorphableModel:
    return get_analytic_head()


def expression(head, **sigmas):
    exp = np.zeros(head.n_exp, np.float32)
    for name, value in sigmas.items():
        exp[head.exp_names.index(name)] = value
    return head.shape(np.zeros(head.n_id), exp)


def test_the_default_head_has_the_promised_size(head):
    assert 3000 < len(head.mean) < 8000
    assert head.n_id >= 10
    assert head.n_exp >= 8
    assert head.exp_names[0] == "jaw_open"
    assert head is get_analytic_head()


def test_it_is_built_the_same_every_time(head):
    from models.perception.head.analytic_head import build_analytic_head

    assert (build_analytic_head().mean == head.mean).all()
    assert (build_analytic_head().exp_basis == head.exp_basis).all()


def test_landmarks_of_the_mean_are_symmetric_and_in_their_places(head):
    marks = head.landmarks(head.mean)
    assert marks[MIRROR] * [-1, 1, 1] == pytest.approx(marks, abs=0.03)
    left_eye, right_eye, nose, chin = marks[36:42].mean(0), marks[42:48].mean(0), marks[30], marks[8]
    mouth, brows = marks[48:68].mean(0), marks[17:27].mean(0)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert brows[1] > left_eye[1] > nose[1] > mouth[1] > chin[1]
    assert nose[2] == marks[17:].max(0)[2]  # the tip is the most forward
    assert (np.diff(marks[:17, 0]) > 0).all()


def test_normals_point_outward(head):
    normals = head.normals(head.mean)
    skin = head.regions["skin"] & ~head.regions["ears"] & ~head.regions["neck"]
    from_middle = head.mean - np.array([0, 0, -0.1])
    outward = (normals * from_middle).sum(1)[skin] > 0
    assert outward.mean() > 0.97  # nostrils, sockets and the lips' inner edges look sideways
    assert np.linalg.norm(normals[skin], axis=1) == pytest.approx(np.ones(skin.sum()), abs=1e-3)


def test_jaw_opening_parts_the_lips_and_leaves_the_upper_face(head):
    still, opened = head.landmarks(head.mean), head.landmarks(expression(head, jaw_open=2))
    assert opened[62, 1] - opened[66, 1] > 0.2
    assert opened[8, 1] < still[8, 1] - 0.2
    assert np.abs(opened[17:48] - still[17:48]).max() < 0.02


def test_a_blink_closes_one_eye(head):
    marks = head.landmarks(expression(head, blink_left=2))
    assert abs(marks[37, 1] - marks[41, 1]) < 0.005
    assert marks[44, 1] - marks[46, 1] > 0.08


def test_shape_is_linear_and_batches(head):
    rng = np.random.default_rng(0)
    id, exp = rng.normal(size=head.n_id), rng.normal(size=(4, head.n_exp))
    batch = head.shape(id, exp)
    assert batch.shape == (4, len(head.mean), 3)
    assert batch[2] == pytest.approx(head.mean + head.id_basis @ id + head.exp_basis @ exp[2], abs=1e-5)
    assert head.landmarks(batch).shape == (4, 68, 3)
    assert head.normals(batch)[3] == pytest.approx(head.normals(batch[3]))


def test_the_landmark_model_is_the_model_at_its_landmarks(head):
    rng = np.random.default_rng(1)
    id, exp = rng.normal(size=head.n_id), rng.normal(size=head.n_exp)
    mean, id_basis, exp_basis = head.landmark_model()
    assert mean + id_basis @ id + exp_basis @ exp == pytest.approx(
        head.landmarks(head.shape(id, exp)), abs=1e-5
    )


def test_dense_points_are_vertices_or_lie_on_triangles(head):
    vertices = np.array([3, 1, 11], np.int32)
    plain = replace(head, dense_index=vertices, dense_weight=None, dense_angles=None)
    assert (plain.dense_model()[2] == head.exp_basis[vertices]).all()
    middle = replace(plain, dense_index=vertices[None], dense_weight=np.full((1, 3), 1 / 3, np.float32))
    assert middle.dense_model()[0][0] == pytest.approx(head.mean[vertices].mean(0), abs=1e-6)
    with pytest.raises(ValueError, match="has no dense points"):
        replace(plain, dense_index=None).dense_model()


def test_dense_points_on_triangles_are_saved_and_loaded(head):
    file = io.BytesIO()
    head.save(file)
    file.seek(0)
    loaded = MorphableModel.load(file)
    assert (loaded.dense_model()[0] == head.dense_model()[0]).all()
    assert (loaded.dense_angles == head.dense_angles).all()


def test_wrong_coefficient_counts_are_named(head):
    with pytest.raises(ValueError, match="3 identity and"):
        head.shape(np.zeros(3), np.zeros(head.n_exp))


def test_save_and_load_give_the_same_model(head):
    file = io.BytesIO()
    head.save(file)
    file.seek(0)
    loaded = MorphableModel.load(file)
    assert (loaded.mean == head.mean).all()
    assert loaded.exp_names == head.exp_names
    assert loaded.metres_per_unit == head.metres_per_unit
    assert loaded.regions.keys() == head.regions.keys()
    assert (loaded.landmarks(loaded.mean) == head.landmarks(head.mean)).all()


@pytest.mark.parametrize("field", CRIMES)
def test_a_broken_field_is_named(head, field):
    with pytest.raises(ValueError, match=field if field != "regions" else "region skin"):
        replace(head, **{field: CRIMES[field](head)})


def test_a_file_without_a_field_or_with_a_strange_one_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", name="x", mean=np.zeros((3, 3), np.float32))
    with pytest.raises(InvalidFile, match="no license, id_basis"):
        MorphableModel.load(tmp_path / "m.npz")


def test_a_file_with_a_field_of_the_wrong_shape_is_named_with_the_field(head, tmp_path):
    head.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(tmp_path / "m.npz", **(arrays | {"exp_basis": arrays["exp_basis"][..., 0]}))
    with pytest.raises(InvalidFile, match=r"m\.npz: .*exp_basis is .*expected 3 dimensions"):
        MorphableModel.load(tmp_path / "m.npz")


@pytest.fixture(scope="module")
def tiny() -> dict[str, np.ndarray]:
    """The arrays of a model of three vertices."""
    corners = np.zeros((68, 3), np.int32)
    model = MorphableModel(
        name="three", license="none", mean=np.eye(3, dtype=np.float32),
        id_basis=np.ones((3, 3, 2), np.float32), exp_basis=np.ones((3, 3, 1), np.float32),
        faces=np.array([[0, 1, 2]], np.int32), lm68_index=corners,
        lm68_weight=np.eye(3, dtype=np.float32)[corners[:, 0]], exp_names=("jaw",),
    )  # fmt: skip
    file = io.BytesIO()
    model.save(file)
    with np.load(io.BytesIO(file.getvalue())) as archive:
        return dict(archive)


FIELDS = {
    "metres_per_unit": (np.ones(2), r"has shape \(2,\), expected \(\)"),
    "name": (np.arange(3), "is of type int64, expected text"),
    "license": (np.array(["a", "b"]), r"has shape \(2,\), expected \(\)"),
    "exp_names": (np.array("jaw"), r"has shape \(\), expected \(any,\)"),
    "id_names": (np.ones(2), "is of type float64, expected text"),
    "mean": (np.array("face"), r"is \(\); expected 2 dimensions"),
    "uv": (np.ones(3), r"is float64 \(3,\); expected float32 \(3, 2\)"),
    "regions": (np.ones(3, bool), "in a morphable model"),
    "region_skin": (np.ones(2, bool), r"is bool \(2,\); expected bool \(3,\)"),
    "dense_index": (np.array(3, np.int32), "expected int32 of one dimension"),
    "dense_weight": (np.ones((2, 3)), r"is float64 \(2, 3\); expected float32"),
    "dense_angles": (np.ones(2), "expected three finite degrees"),
    "faces": (np.zeros((1, 4), np.int32), r"is int32 \(1, 4\); expected int32 \(1, 3\)"),
    "exp_basis": (np.array([None]), "cannot be read .*expected an array of an npz"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_field_of_a_file_is_told_by_file_and_field(tiny, tmp_path, field):
    value, told = FIELDS[field]
    np.savez(tmp_path / "m.npz", **(tiny | {field: value}))
    with pytest.raises(InvalidFile, match=rf"^m\.npz: .*{field.removeprefix('region_')} .*{told}"):
        MorphableModel.load(tmp_path / "m.npz")


def test_a_model_of_few_fields_is_loaded(tiny, tmp_path):
    np.savez(tmp_path / "m.npz", **tiny)
    assert MorphableModel.load(tmp_path / "m.npz").exp_names == ("jaw",)


def changed(path, at, byte):
    """A file with a byte of another value."""
    data = bytearray(path.read_bytes())
    data[at] = byte
    path.write_bytes(data)


def test_a_file_that_is_cut_rotten_or_no_npz_is_told_by_name(tiny, tmp_path):
    path = tmp_path / "m.npz"

    def refused(told):
        with pytest.raises(InvalidFile, match=rf"^m\.npz: {told}.* Is it a morphable model as .*, whole"):
            MorphableModel.load(path)

    path.write_text("vertices 3")
    refused("the file is no zip archive, or one cut short, expected an npz")
    np.save(tmp_path / "m.npy", tiny["mean"])
    (tmp_path / "m.npy").replace(path)
    refused("the file is no zip archive")
    np.savez(path, **tiny)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("the file is no zip archive, or one cut short")
    path.write_bytes(whole)
    changed(path, whole.index(tiny["faces"].tobytes()) + 4, 7)
    refused(r"faces cannot be read \(Bad CRC")
    path.write_bytes(whole)
    changed(path, whole.index(b"PK\x01\x02"), 0)  # the table of contents
    refused(r"the file cannot be read \(Bad magic")
    with ZipFile(path, "w") as archive:
        archive.writestr("mean.npy", b"no array")
    refused(r"mean cannot be read \(it holds other bytes\)")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "m.npz", name=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidFile, match="allow_pickle"):
        MorphableModel.load(tmp_path / "m.npz")
