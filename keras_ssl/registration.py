"""Keras finds the classes of this package in saved files, although `import keras_ssl` does not import Keras.

`keras.models.load_model` looks a class up by the name under which it is registered, and a class is registered when its
module is imported. So these modules are imported as soon as Keras is: at once if Keras was imported before, otherwise
at the end of the first import that brings Keras, be it `import keras` or the import of a module of this package.

A finder on `sys.meta_path`, which leaves the finding to the others, sees when an import ends. It waits for the
outermost import, because other modules can't use one of this package that is imported only in part. Then it is removed.
"""

import importlib
import sys
import threading

from keras_ssl.names import REGISTERED


def register_with_keras():
    """Registers all classes: now if Keras is imported already, otherwise when it is imported."""
    if "keras" in sys.modules:
        _import_all()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _import_all():
    for name in REGISTERED:
        importlib.import_module(name)


class _AfterKeras:
    """Watches imports of Keras and of this package until the first that ends with Keras imported."""

    def __init__(self):
        self._thread = threading.local()  # its `depth`: how many watched imports are under way

    def find_spec(self, name, path=None, target=None):
        if name != "keras" and not name.startswith("keras_ssl."):
            return None
        for finder in list(sys.meta_path):
            found = None if finder is self else finder.find_spec(name, path, target)
            if found is not None:
                if found.loader is not None:
                    self._watch(found.loader)
                return found
        return None

    def _watch(self, loader):
        execute = loader.exec_module

        def exec_module(module):
            del loader.exec_module  # only this import is watched: the loader has its own method back
            depth = getattr(self._thread, "depth", 0)
            self._thread.depth = depth + 1
            try:
                execute(module)
            finally:
                self._thread.depth = depth
            if depth == 0 and "keras" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _import_all()

        loader.exec_module = exec_module
