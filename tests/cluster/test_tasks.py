"""Heavy functions of the driver: in a Ray task, or here where no Ray runs."""

import subprocess
import sys

PROGRAM = """
import sys
from pipelines.cluster.tasks import run_in_worker
assert run_in_worker(lambda a, b: a - b, 5, b=3) == 2
try:
    run_in_worker(int, "x")
except ValueError as error:
    print(type(error).__name__, "ray" in sys.modules)
"""


def test_without_ray_a_function_is_called_here_and_raises_its_own_error():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "ValueError False\n", done.stderr
