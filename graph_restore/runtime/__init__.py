"""Live TensorFlow: graphs, sessions, variables and savers. The only room that imports it, on first use."""
