"""The command line: one module a verb, which prints and never computes."""
