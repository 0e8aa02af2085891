"""Run by an old TensorFlow: the variables of a MetaGraph, restored from a checkpoint or initialised, as an .npz file.

    python variables_of.py METAGRAPH CHECKPOINT|- OUTPUT.npz [NODE=NUMBER ...]

Names are tensor names; NODE=NUMBER feeds. Runs under Python 2.7 and 3.
"""

from __future__ import print_function

import sys

import numpy as np
import tensorflow as tf

meta_graph, checkpoint, output = sys.argv[1:4]
with tf.Graph().as_default(), tf.Session() as session:
    saver = tf.train.import_meta_graph(meta_graph, clear_devices=True)
    collection = getattr(tf, "global_variables", None) or tf.all_variables
    variables = collection()
    if checkpoint == "-":
        session.run([variable.initializer for variable in variables])
    else:
        saver.restore(session, checkpoint)
    kept = [variable for variable in variables if variable.dtype.base_dtype != tf.string]
    values = dict((variable.name.replace("/", "|"), session.run(variable)) for variable in kept
                  if checkpoint == "-" or session.run(tf.report_uninitialized_variables([variable])).size == 0)
np.savez(output, **values)
print(tf.__version__, len(values), "variables")
