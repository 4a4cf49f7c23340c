"""python -m pipelines"""

from pipelines.cli.main import main

main(prog_name="reenact")
