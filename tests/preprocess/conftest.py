"""Videos made on the spot, a portrait and dlib's nets (tests/video_files.py)."""

from tests.video_files import face_video, helpers, nets, portrait, predictor

__all__ = ["face_video", "helpers", "nets", "portrait", "predictor"]
