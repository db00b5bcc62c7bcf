"""`python -m csi.cli` is the program `csi-local-path`."""

from csi.cli import main

main(prog_name="csi-local-path")
