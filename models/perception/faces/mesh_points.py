"""Which of the face mesh's 468 points are which (MediaPipe's face_landmark.tflite; Kartynnik et al. 2019).

Left and right are sides of the image: the left eye is the person's right one.
"""

from __future__ import annotations

MESH_POINT_COUNT = 468
LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS = (33, 133), (362, 263)
"""From left to right."""
OUTER_EYE_CORNERS = (33, 263)
IBUG68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    46, 53, 52, 65, 55, 285, 295, 282, 283, 276,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)  # fmt: skip
"""The points that lie nearest to iBUG's 68. The brows are those nearest to dlib's on real clips. The jaw's
points are fixed on the skin, iBUG's slide along the outline: 9 % of the eyes' distance apart, whatever the
choice."""
BROW_UPPER_EDGES = (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)
"""What elsewhere stands for the brows: they are 2 to 8 % higher than dlib's points."""
LEFT_EYE_CONTOUR = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
RIGHT_EYE_CONTOUR = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)
"""In the order of the iris net's first 16 points: outer corner, lower lid, inner corner, upper lid."""
