"""Asks live TensorFlow objects for what the oracle states: variables, slots, averages, savers' keys."""
from __future__ import absolute_import, division, print_function

import numpy as np
import tensorflow as tf


def all_variables():
    found = []
    for variable in tf.global_variables() + tf.local_variables():
        if variable not in found:
            found.append(variable)
    return found


def variables(model):
    """{tensor name: facts} for the collections' variables and the model's raw ones."""
    described = {v.name: _variable(v) for v in all_variables()}
    for optimizer in model.optimizers:
        for name, slot, of in _slots(optimizer):
            described[slot.name]["slot"] = {"of": of.name, "name": name, "optimizer": optimizer.get_name()}
    for average in model.averages:
        for variable in tf.global_variables():
            shadow = average.average(variable)
            if shadow is not None:
                described[shadow.name]["moving_average_of"] = variable.name
    for tensor, facts in model.raw_variables.items():
        described[tensor.name] = dict(_tensor(tensor), **facts)
    return described


def _tensor(tensor):
    shape = tensor.get_shape()
    return {"op": tensor.op.type, "dtype": tensor.dtype.base_dtype.name,
            "shape": None if shape.ndims is None else shape.as_list()}


def _variable(variable):
    handle = variable.op.outputs[0]
    definition = variable.to_proto()
    shape = variable.get_shape()
    return {
        "op": handle.op.type,
        "dtype": variable.dtype.base_dtype.name,
        "shape": None if shape.ndims is None else shape.as_list(),
        "trainable": variable in tf.trainable_variables(),
        "local": variable in tf.local_variables(),
        "initializer": variable.initializer.name,
        "snapshot": definition.snapshot_name,
        "slice": slice_facts(variable),
    }


def slice_facts(variable):
    info = getattr(variable, "_save_slice_info", None)
    if info is None:
        return None
    return {"full_name": info.full_name, "full_shape": [int(n) for n in info.full_shape],
            "var_offset": [int(n) for n in info.var_offset], "var_shape": [int(n) for n in info.var_shape]}


def _slots(optimizer):
    for name in optimizer.get_slot_names():
        for variable in tf.global_variables():
            slot = optimizer.get_slot(variable, name)
            if slot is not None:
                yield name, slot, variable


def keys(saver):
    """[(checkpoint key, variable)] of a Saver; the parts of a partitioned variable share a key."""
    listed = saver._var_list
    if isinstance(listed, dict):
        return [(key, part) for key, value in listed.items() for part in _parts(value)]
    pairs = []
    for variable in (part for value in listed for part in _parts(value)):
        if not hasattr(variable, "specs"):
            facts = slice_facts(variable)
            pairs.append((facts["full_name"] if facts else variable.op.name, variable))
    return pairs


def table_keys(saver):
    """{checkpoint key: tensor that is saved under it} of the mutable tables among what a Saver saves."""
    listed = saver._var_list
    if isinstance(listed, dict):
        return {}
    return {spec.name: spec.tensor for value in listed for spec in getattr(value, "specs", ())}


def _parts(value):
    if isinstance(value, (list, tuple)):
        return list(value)
    return list(value) if type(value).__name__ == "PartitionedVariable" else [value]


def full_values(pairs, values):
    """{key: (array, [facts of each part])}: what the checkpoint must hold, put together from the parts' values."""
    whole = {}
    for key, variable in pairs:
        facts, value = slice_facts(variable), values[variable.name]
        part = {"variable": variable.name}
        if facts is None:
            whole[key] = (value, [part])
            continue
        array, parts = whole.setdefault(key, (np.zeros(facts["full_shape"], value.dtype), []))
        where = tuple(slice(o, o + n) for o, n in zip(facts["var_offset"], facts["var_shape"]))
        array[where] = value
        parts.append(dict(part, offset=facts["var_offset"], shape=facts["var_shape"]))
    return whole
