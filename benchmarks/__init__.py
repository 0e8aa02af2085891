"""How long, and how much memory: against cp and against TensorFlow's own tools, in one run. `python -m benchmarks`."""
