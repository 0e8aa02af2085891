"""What a recipe hands to the driver, and the list of all recipes.

A recipe is a function that builds a model in the default graph and returns a `Model`.  It runs unchanged under
TensorFlow 0.12 to 1.15, Python 2.7 to 3.7.
"""
from __future__ import absolute_import, division, print_function

RECIPES = {}

# which checkpoint versions a recipe is made in, by TensorFlow release
USUAL = {(0, 12): "v1", (1, 4): "v2", (1, 15): "v2"}
BOTH = {(0, 12): "v1 v2", (1, 4): "v2", (1, 15): "v1 v2"}
OLD_AND_NEW = {(0, 12): "v1", (1, 15): "v2"}
SINCE_1_4 = {(1, 4): "v2", (1, 15): "v2"}
ONLY_0_12 = {(0, 12): "v1"}
ONLY_1_15 = {(1, 15): "v2"}
SINCE_1_4_BOTH = {(1, 4): "v2", (1, 15): "v1 v2"}
OLDEST_BOTH = {(0, 12): "v1 v2", (1, 4): "v2", (1, 15): "v2"}


class Model(object):
    """One model, built; the fields tell the driver how to train, save and question it."""

    def __init__(self, fetches, runs=()):
        self.fetches = list(fetches)   # tensors of the oracle
        self.runs = list(runs) or [{}]  # one dict {tensor: array} of feeds for each run of the oracle
        self.steps = []                # (op, feeds), run in this order before saving
        self.init_ops = []             # run after the variables' initializers (tables)
        self.scramble = True           # give float variables values that no initializer would
        self.savers = None             # function(write version) -> [(tag, prefix, Saver)]
        self.graph_def = None          # graph to write, if it is not the whole default graph
        self.saver_in_graph = True     # False: graph.pb is taken before the Saver's nodes are added
        self.raw_variables = {}        # ref or handle -> facts of a variable that has no object
        self.optimizers = []           # asked for their slots
        self.averages = []             # ExponentialMovingAverage objects, asked for their shadows
        self.config = None             # ConfigProto of the sessions
        self.global_step = None        # number that ends the checkpoint's prefix
        self.write_meta = True
        self.already_saved = False     # the recipe wrote the checkpoint itself: take the values from there
        self.text = False              # write graph.pbtxt too
        self.after = None              # function(Recording), called with the trained session still open
        self.facts = {}                # anything else for oracle.json


def recipe(made_in=None):
    """Decorator: registers a builder under its function's name.  `made_in` is one of the tables above."""
    def register(build):
        RECIPES[build.__name__] = (build, made_in or USUAL)
        return build
    return register


def versions_for(made_in, release):
    """Checkpoint versions (1, 2) to make under TensorFlow `release`, a pair such as (0, 12)."""
    return [int(word[1:]) for word in made_in.get(release, "").split()]
