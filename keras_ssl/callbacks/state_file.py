"""The file in which `Resume` keeps a run: the last two states, each whole or known to be damaged."""

import json
import pathlib
import warnings

import numpy as np

from keras_ssl import files

_VERSION = 2  # 1 had no checksum


class StateFile:
    """The last two states of a run, in `path` and, with ".previous" behind its name, the one before it.

    Args:
        path: of the last one; an `.npz` file, whatever it is called.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.previous = files.previous_of(self.path)
        self._lock = files.Lock(self.path.with_name(self.path.name + ".lock"), f"Resume: {self.path}")
        self._sound = True  # whether what lies in `path` may take the place of the one before it

    def acquire(self):
        """Keeps other runs from writing here until `release`; removes what killed ones left half written.

        Raises:
            BlockingIOError: another run writes here. OSError: nothing can be written here.
        """
        self._lock.__enter__()
        for path in (self.path, self.previous):
            files.remove_unfinished(path)

    def release(self):
        self._lock.__exit__()

    def write(self, about, arrays):
        """Writes a state; the last one becomes the one before it.

        Args:
            about: what JSON can hold.
            arrays: by name.

        Raises:
            OSError: a sentence; both states that there were are still there.
        """
        about = json.dumps({**about, "version": _VERSION})
        keep = self.previous if self._sound else None
        with files.replacing(self.path, sealed=True, keep=keep) as temporary, open(temporary, "wb") as file:
            np.savez(file, about=about, **arrays)
        self._sound = True

    def read(self):
        """`(about, arrays by name, path it was read from)` of the last state, or of the one before it where the last
        is damaged, which a warning says; None where there is neither.

        Raises:
            keras_ssl.files.DamagedFile: both are.
        """
        if not self.path.exists():
            if self.previous.exists():
                raise FileNotFoundError(
                    f"Resume: there is no {self.path}, but the state before it, {self.previous}: rename that one to "
                    f"{self.path.name} to continue from it, or delete it to begin anew."
                )
            return None
        try:
            self._sound = True
            return (*_read(self.path), self.path)
        except files.DamagedFile as damage:
            self._sound = False
            return self._read_previous(str(damage).rstrip("."))

    def _read_previous(self, damage):
        if not self.previous.exists():
            raise files.DamagedFile(
                f"Resume: {damage}, and there is no state before it: delete the file to begin anew."
            )
        try:
            found = _read(self.previous)
        except files.DamagedFile as other:
            raise files.DamagedFile(
                f"Resume: both states are damaged: {damage}; {str(other).rstrip('.')}. Delete both files to begin anew."
            ) from None
        epoch, batch = found[0]["place"]
        warnings.warn(
            f"Resume: {damage}. The state before it, {self.previous}, is whole and is used: {epoch} epochs and {batch} "
            "batches are done; what was trained after it is trained again."
        )
        return (*found, self.previous)


def _read(path):
    sealed = files.check(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in file.files if name != "about"}
            count, _ = len(about["state"]), [int(number) for number in about["place"]]
            if not set(map(str, range(count))) <= set(arrays):
                raise ValueError("arrays are missing")
    except Exception as error:  # whatever numpy and zipfile make of a file of some other program
        raise files.DamagedFile(f"{path} is damaged, or no state of Resume: {error}") from error
    if about.get("version", 1) >= _VERSION and not sealed:
        raise files.DamagedFile(f"{path} is damaged: its checksum was cut off.")
    return about, arrays
