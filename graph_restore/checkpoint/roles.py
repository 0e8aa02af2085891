"""What the tensors of a checkpoint are for, told by their names alone: a checkpoint has no graph to ask.

1. `<variable>/<Slot>` is a slot when the slot's name is of an optimizer and the variable is there too. Slots made under
   another scope (`OptimizeLoss/<variable>/Adam`) and Keras's (`training/Adam/<variable>/m`) count.
2. `<variable>/ExponentialMovingAverage` is a moving average.
3. `beta1_power` and such, and the numbers directly under a scope named as an optimizer, are the optimizer's own state.
4. In object checkpoints `/.OPTIMIZER_SLOT/` marks slots and names the optimizer, whose own numbers are its state too
   (so are those of an object `optimizer` or `opt`); two keys hold the graph of objects.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

OBJECT_GRAPHS = ("_CHECKPOINTABLE_OBJECT_GRAPH", "_TRACKABLE_OBJECT_GRAPH")
AVERAGE_NAME = "ExponentialMovingAverage"
_WORDS = (
    "adam|momentum|rms_?prop|adagrad|adadelta|adamax|nadam|ftrl|lars|lamb|sgd|proximal|yogi|adafactor|power_?sign|"
    "gradient_?descent|add_?sign|shampoo|slot"
)
_OPTIMIZER = re.compile(rf"(?:{_WORDS})", re.IGNORECASE)
_KERAS_SLOT = re.compile(r"(?:m|v|vhat|rms|mg|momentum|accumulator|accum_grad|accum_var|linear)(?:_\d+)?")
_POWER = re.compile(r"(?:.*/)?(?:beta1_power|beta2_power|lookahead_step)(?:_\d+)?", re.DOTALL)
_NUMBERS = re.compile(
    r"(?:iter|beta_1|beta_2|decay|learning_rate|rho|momentum|epsilon|initial_accumulator_value|momentum_cache|"
    r"learning_rate_power|l[12]_regularization_strength)(?:_\d+)?"
)
_OBJECT_SLOT = re.compile(
    r"(?P<variable>.*)/\.OPTIMIZER_SLOT/(?P<optimizer>(?:.*/)?)(?P<slot>[^/]+)/\.ATTRIBUTES/", re.DOTALL
)
_OBJECT_VALUE = re.compile(r"(?P<scope>.*/)(?P<name>[^/]+)/\.ATTRIBUTES/VARIABLE_VALUE", re.DOTALL)
_OBJECT_NUMBERS = re.compile(rf"{_NUMBERS.pattern}|beta[12]_power|_?iterations|_learning_rate")
_OPTIMIZER_OBJECTS = ("optimizer/", "opt/")


@dataclass(frozen=True)
class Role:
    """`kind`: "variable", "slot", "moving average", "optimizer", "object graph"; `of`: whose slot or average it is."""

    kind: str = "variable"
    of: str | None = None

    @property
    def is_optimizer_state(self) -> bool:
        """Whether only training needs it."""
        return self.kind in ("slot", "optimizer")


_VARIABLE = Role()


def roles(names: Iterable[str]) -> dict[str, Role]:
    """The role of every tensor of a checkpoint, given all their names."""
    known = set(names)
    slots = filter(None, map(_OBJECT_SLOT.match, filter(_is_in_object, known)))
    optimizers = {*_OPTIMIZER_OBJECTS, *(match["optimizer"] for match in slots)} - {""}
    return {name: _role(name, known, optimizers) for name in sorted(known)}


def _role(name: str, names: Collection[str], optimizers: Collection[str]) -> Role:
    if name in OBJECT_GRAPHS:
        return Role("object graph")
    in_object = _is_in_object(name)
    if in_object and (match := _OBJECT_SLOT.match(name)):
        return Role("slot", match["variable"])
    if (
        in_object
        and (match := _OBJECT_VALUE.fullmatch(name))
        and match["scope"].removesuffix("_variables/") in optimizers
    ):
        if match["scope"].endswith("/_variables/"):  # where later releases of Keras keep slots and numbers alike
            return Role("optimizer")
        return Role("optimizer") if _OBJECT_NUMBERS.fullmatch(match["name"]) else Role()
    base, _, last = name.rpartition("/")
    if base and last == AVERAGE_NAME:
        return Role("moving average", _variable(base, names) or base)
    variable = _variable(base, names) if base else None
    if variable is not None:
        scope = base[: len(base) - len(variable)]
        if _OPTIMIZER.search(last) or (_KERAS_SLOT.fullmatch(last) and _OPTIMIZER.search(scope)):
            return Role("slot", variable)
    if _POWER.fullmatch(name) or (_NUMBERS.fullmatch(last) and _OPTIMIZER.search(base.rpartition("/")[2])):
        return Role("optimizer")
    return _VARIABLE


def _is_in_object(name: str) -> bool:
    """Whether a name can be that of an object's value at all, which is found out sooner than how it is made."""
    return "/.ATTRIBUTES/" in name


def _variable(base: str, names: Collection[str]) -> str | None:
    """The tensor that `base` names, be it with a further scope in front."""
    while base not in names:
        _, slash, base = base.partition("/")
        if not slash:
            return None
    return base
