"""What is scored beside the models: the baselines, by the names that their records bear."""

COPY, CODEC = "copy_source", "codec"
BASELINES = (COPY, CODEC)
