"""`python -m viewsync` is the `viewsync` command."""

from viewsync.cli import main

main(prog_name="viewsync")
