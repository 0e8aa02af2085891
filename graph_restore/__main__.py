"""`python -m graph_restore` is the command line, the same as `graph-restore`."""

from __future__ import annotations

from graph_restore.cli.main import main

if __name__ == "__main__":
    main(prog_name="graph-restore")
