import numpy as np

from models.perception.interfaces import LandmarkPrediction
from models.reenactor import FaceFrames
from pipelines.animate.driving import face_presence_mask
from pipelines.animate.face_points import drop_slipped_landmarks


class SlippingLandmarker:
    """Knows a face, but in frame 1 its points go with the box."""

    name = "dlib68"

    def landmarks(self, frames, boxes, rolls=None):
        points = np.random.default_rng(0).uniform(20, 60, (68, 2)) + np.zeros((len(frames), 1, 1))
        points[:, [36, 45, 27, 33]] = [[20, 30], [60, 30], [40, 30], [40, 45]]
        follows = frames[:, 0, 0, 0] == 1
        points[follows] += 3 * (boxes[follows, None, :2] - 20)
        return points.astype(np.float32)

    def predict(self, frames, boxes, rolls=None, detected=None):
        return LandmarkPrediction(landmarks=self.landmarks(frames, boxes))


def test_driving_frames_whose_landmarks_slip_are_frames_without_a_face():
    frames = np.zeros((3, 80, 80, 3), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None]
    faces = FaceFrames(frames=frames, boxes=np.tile(np.float32([20, 20, 60, 60]), (3, 1)))
    found, slipped = drop_slipped_landmarks(faces, SlippingLandmarker())
    assert slipped == 1
    assert face_presence_mask(found.boxes).tolist() == [True, False, True]
    assert found.landmarks is not None
    assert np.isfinite(found.landmarks).all((1, 2)).tolist() == [True, False, True]
    assert drop_slipped_landmarks(faces, None)[0] is faces
    assert drop_slipped_landmarks(faces, SlippingLandmarker(), max_slip=0.0)[1] == 0
