"""Change two modules of Keras in the kernels that `alone.py` starts, at the moment of their import.

Python imports a module of this name at its start if it finds one; `alone.py` puts this folder on
the kernels' path. Two environment variables say what to change:

MNIST_URL  Keras downloads MNIST from this address instead of its own. The archive there has the
           same arrays as Keras' but other bytes, so its hash is not compared.
PRETEND_GPU  Keras decides about XLA as it does where there is a GPU.
"""

import importlib.abc
import importlib.util
import os
import sys


def download_from_here(module):
    get_file = module.get_file

    def get_file_from_here(fname, origin, file_hash):
        return get_file(fname=fname, origin=os.environ["MNIST_URL"])

    module.get_file = get_file_from_here


def use_xla_as_with_a_gpu(module):
    # A name that Keras does not have (any more) would change nothing, and all would seem well
    assert hasattr(module.Trainer, "_resolve_auto_jit_compile"), "Keras decides elsewhere now"
    module.Trainer._resolve_auto_jit_compile = module.model_supports_jit  # of a model, as a method


CHANGES = {}
if "MNIST_URL" in os.environ:
    CHANGES["keras.src.datasets.mnist"] = download_from_here
if "PRETEND_GPU" in os.environ:
    CHANGES["keras.src.trainers.trainer"] = use_xla_as_with_a_gpu


class ChangeAfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules in CHANGES as Python would, and changes each when it has been executed."""

    def find_spec(self, name, path, target=None):
        change = CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change
        return spec


sys.meta_path.insert(0, ChangeAfterImport())
