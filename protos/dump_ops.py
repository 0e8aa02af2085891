"""Write down every op that one TensorFlow knows, tf.contrib included. Runs on Python 2.7 and 3 under TF 0.12 to 2.21.

    python protos/dump_ops.py DIRECTORY

run with the interpreter of the TensorFlow to be dumped, leaves three files in DIRECTORY:

    <version>.core.pb       serialized OpList: what `import tensorflow` alone registers
    <version>.contrib.pb    serialized OpList: what the op libraries below tensorflow/contrib add, if any
    <version>.contrib.json  {op name: "tensorflow.contrib.<module>"}, for the added ops and for those that are linked
                            into TensorFlow itself but whose Python wrapper lies in tf.contrib only

`make_op_table.py` merges these files. The registry is read through the C API (`TF_GetAllOpList`, tensorflow/c/c_api.h),
internal ops such as `_Send` included; wheels that hide that function (0.12, 1.0) export the C++ registry instead.
"""

# This file has to run on Python 2.7 as well.
# ruff: noqa: UP010, UP020, UP032
from __future__ import print_function

import ctypes
import io
import json
import os
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.framework import load_library

# Shared objects below tensorflow/contrib that hold no ops; loading some of them as op libraries kills the process.
NOT_OP_LIBRARIES = re.compile(r"^(_pywrap|_tensorflow_wrap|libtestexample|libforestprotos|_nearest_neighbor_testing)")
# The op list that the generator of Python wrappers leaves in each gen_*.py, as a comment or as a string.
GENERATED_OP = re.compile(r'^(?:# |.*""")?op \{\n(?:# )?  name: "(\w+)"', re.MULTILINE)


class _Buffer(ctypes.Structure):
    """TF_Buffer of tensorflow/c/c_api.h."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


def package_directory():
    """The directory that holds tensorflow/python (tensorflow_core in the 1.15 wheels)."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(load_library.__file__))))


def native_library():
    """The shared object with the op registry, opened with ctypes (it is the copy that `import tensorflow` loaded)."""
    names = [
        "libtensorflow_cc.so.2",
        "python/_pywrap_tensorflow_internal.so",
        "python/_pywrap_tensorflow.so",
    ]
    for name in names:
        path = os.path.join(package_directory(), name)
        if os.path.exists(path):
            return ctypes.CDLL(path)
    raise SystemExit("no TensorFlow shared object found under {}".format(package_directory()))


def registry_through_c(library):
    """The registry as serialized OpList, from the C API."""
    library.TF_GetAllOpList.restype = ctypes.POINTER(_Buffer)
    library.TF_GetAllOpList.argtypes = []
    buffer = library.TF_GetAllOpList()
    return ctypes.string_at(buffer.contents.data, buffer.contents.length)


def registry_through_cpp(library):
    """The registry as serialized OpList, from the C++ symbols OpRegistry::Global, OpRegistry::Export and OpList."""

    def method(symbol, result, *arguments):
        function = getattr(library, symbol)
        function.restype = result
        function.argtypes = list(arguments)
        return function

    pointer = ctypes.c_void_p
    op_list = ctypes.create_string_buffer(1024)  # an OpList object is smaller than 100 bytes
    address = ctypes.addressof(op_list)
    method("_ZN10tensorflow6OpListC1Ev", None, pointer)(address)
    registry = method("_ZN10tensorflow10OpRegistry6GlobalEv", pointer)()
    export = method("_ZNK10tensorflow10OpRegistry6ExportEbPNS_6OpListE", None, pointer, ctypes.c_bool, pointer)
    export(registry, True, address)
    size = method("_ZNK10tensorflow6OpList12ByteSizeLongEv", ctypes.c_size_t, pointer)(address)
    data = ctypes.create_string_buffer(size)
    start = ctypes.addressof(data)
    serialize = "_ZNK10tensorflow6OpList31SerializeWithCachedSizesToArrayEPh"  # gives a pointer past the last byte
    end = method(serialize, pointer, pointer, pointer)(address, start)
    if end != start + size:
        raise SystemExit("the C++ op registry gave {} bytes where {} were expected".format(end - start, size))
    return data.raw


def registered_ops():
    """{op name: OpDef} of all that is registered in this process now."""
    library = native_library()
    read = registry_through_c if hasattr(library, "TF_GetAllOpList") else registry_through_cpp
    op_list = op_def_pb2.OpList()
    op_list.ParseFromString(read(library))
    return {op.name: op for op in op_list.op}


def files_below(directory, pattern):
    for root, _, names in sorted(os.walk(directory)):
        for name in sorted(names):
            if re.match(pattern, name):
                yield os.path.join(root, name)


def contrib_module(path):
    """The public module a file below tensorflow/contrib belongs to: "tensorflow.contrib.rnn"."""
    below = os.path.relpath(path, os.path.join(package_directory(), "contrib"))
    return "tensorflow.contrib." + below.split(os.sep)[0]


def load_contrib_libraries(core):
    """Load each op library of tf.contrib; {op name: module} of what each adds to the registry."""
    added = {}
    waiting = [
        path
        for path in files_below(os.path.join(package_directory(), "contrib"), r".*\.so$")
        if not NOT_OP_LIBRARIES.match(os.path.basename(path))
    ]
    for _ in range(2):  # some libraries need symbols of others, so those that fail get a second go
        failed = []
        for path in waiting:
            try:
                load_library.load_op_library(path)
            except (tf.errors.OpError, RuntimeError) as error:  # not every .so is an op library, and some miss symbols
                failed.append((path, str(error)))
                continue
            for name in registered_ops():
                if name not in core:
                    added.setdefault(name, contrib_module(path))
        waiting = [path for path, _ in failed]
    for path, error in failed:
        print("not loaded: {}: {}".format(os.path.relpath(path, package_directory()), error[:200]), file=sys.stderr)
    return added


def generated_ops(directory):
    """{op name: path} of the ops that the generated wrappers below a directory describe."""
    found = {}
    for path in files_below(directory, r"gen_.*\.py$"):
        with io.open(path, encoding="utf-8") as source:
            for name in GENERATED_OP.findall(source.read()):
                found.setdefault(name, path)
    return found


def generated_op_def(path, name):
    """The OpDef of an op whose library could not be loaded, from the text in its generated wrapper."""
    with io.open(path, encoding="utf-8") as source:
        lines = source.read().split("\n")
    first = next(i for i in range(len(lines)) if lines[i : i + 2] == ["# op {", '#   name: "{}"'.format(name)])
    last = lines.index("# }", first)
    op_list = text_format.Parse("\n".join(line[2:] for line in lines[first : last + 1]), op_def_pb2.OpList())
    return op_list.op[0]


def main(directory):
    if not os.path.isdir(directory):
        os.makedirs(directory)
    core = registered_ops()
    modules = load_contrib_libraries(core)
    everything = registered_ops()

    wrapped_in_core = generated_ops(os.path.join(package_directory(), "python"))
    for name, path in sorted(generated_ops(os.path.join(package_directory(), "contrib")).items()):
        if name not in everything:
            everything[name] = generated_op_def(path, name)
        if name not in wrapped_in_core:
            modules[name] = contrib_module(path)

    prefix = os.path.join(directory, tf.__version__)
    for kind, names in (("core", sorted(core)), ("contrib", sorted(set(everything) - set(core)))):
        with open("{}.{}.pb".format(prefix, kind), "wb") as target:
            target.write(op_def_pb2.OpList(op=[everything[name] for name in names]).SerializeToString())
    with open(prefix + ".contrib.json", "w") as target:
        json.dump(modules, target, indent=1, sort_keys=True)
    print("TensorFlow {}: {} ops, {} of tf.contrib".format(tf.__version__, len(everything), len(modules)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
