"""Copies a checkpoint of any age into a .npz file, one array a tensor, without TensorFlow.

    python examples/checkpoint_to_npz.py PREFIX OUTPUT.npz

An array's name is the tensor's with `/` turned into `|`, since the names in a .npz are those of files in a zip archive.
"""

from __future__ import annotations

import sys

import numpy as np

import graph_restore as gr


def main(prefix: str, output: str) -> None:
    """Read every number of the checkpoint and write it down."""
    checkpoint = gr.load_checkpoint(prefix)
    numbers = {name: tensor for name, tensor in checkpoint.items() if tensor.dtype.kind != "O"}
    np.savez(output, **{name.replace("/", "|"): tensor.read() for name, tensor in numbers.items()})
    print(f"{len(numbers)} of {len(checkpoint)} tensors, {sum(t.nbytes for t in numbers.values()):,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
