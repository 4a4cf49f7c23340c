"""What stands beside the models: the real frames, and the baselines, by the names that their records bear."""

TRUTH, DRIVING = "truth", "driving"
"""The driving frames: what is to be reached where a clip is paired with itself, else what drives."""
COPY, CODEC = "copy_source", "codec"
BASELINES = (COPY, CODEC)
FUNCTIONS = {TRUTH: "driving_frames", DRIVING: "driving_frames", COPY: "copy_source", CODEC: "codec"}
"""Method that is no model -> its function in pipelines/eval/generate.py."""
