"""What made a result: versions of packages, and the machine, in words."""

import importlib.metadata
import platform

import keras

import keras_ssl
from keras_ssl import backend


def versions():
    """A dict of name to version: of this package, Keras, its backend (by name, and the package's version), Python."""
    name = keras.backend.backend()
    return {
        "keras_ssl": keras_ssl.__version__,
        "keras": keras.__version__,
        "backend": name,
        name: _version(name),
        "python": platform.python_version(),
    }


def machine():
    """Cores and accelerators that this process may use, and the system, such as "2 CPU cores (x86_64, Linux)"."""
    cores = backend.number_of_cores()
    found = backend.local_accelerators()
    parts = [f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()}, {platform.system()})"]
    if found:
        parts.append(f"{found} GPU{'s' if found != 1 else ''} or TPU cores")
    return ", ".join(parts)


def _version(package):
    for name in (package, f"{package}-cpu"):  # TensorFlow is published under both
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
