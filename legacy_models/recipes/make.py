"""make.py [--list] [model ...]: remakes legacy_models/<model>/tf<version>-<v1|v2>/ with the running TensorFlow."""
from __future__ import absolute_import, division, print_function

import logging
import os
import shutil
import sys
import traceback
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
warnings.filterwarnings("ignore")
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import exports  # noqa: E402,F401
import files  # noqa: E402,F401
import graphs  # noqa: E402,F401
import networks  # noqa: E402,F401
import state  # noqa: E402,F401
import tables  # noqa: E402,F401
import training  # noqa: E402,F401
import updates  # noqa: E402,F401
from model import RECIPES, versions_for  # noqa: E402
from recording import Recording  # noqa: E402
from versions import RELEASE  # noqa: E402

CORPUS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make(name, build, version):
    """One model in a process of its own: an old TensorFlow may crash, and state does not leak."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_make_here(name, build, version))
    return os.waitpid(child, 0)[1] == 0


def _make_here(name, build, version):
    try:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        np.random.seed(1)
        recording = Recording(name, build, version)
        recording.run()
        target = os.path.join(CORPUS, name, "tf%s-v%d" % (tf.__version__, version))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(recording.folder, target)
        shutil.rmtree(recording.folder)
        return 0
    except Exception:
        traceback.print_exc()
        return 1


def main(wanted):
    failed = []
    for name in sorted(wanted or RECIPES):
        build, made_in = RECIPES[name]
        for version in versions_for(made_in, RELEASE):
            done = make(name, build, version)
            print("tf%s %s v%d %s" % (tf.__version__, name, version, "ok" if done else "FAILED"))
            failed += [] if done else [name]
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(sorted(RECIPES)))
    else:
        sys.exit(main(sys.argv[1:]))
