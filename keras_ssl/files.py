"""Files that are whole or not there: written beside their place and renamed, with a checksum, by one run at a time."""

import contextlib
import difflib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import socket
import warnings
import weakref
import zipfile

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_END = b"PK\5\6"  # how the end of a zip file begins: 22 bytes, the last two the length of the comment that follows
_MARK = b"keras_ssl blake2b "
_DIGEST = 16  # bytes
_UNFINISHED = ".unfinished-"


class DamagedFile(ValueError):
    """A file that is not what was written: cut off, half written, or with other bytes."""


def existing_file(path, what):
    """The path of a file that is there, with `~` written out.

    Args:
        path: of the file.
        what: the argument or flag that names it.

    Raises:
        FileNotFoundError: there is none; with what is alike.
        IsADirectoryError: it is a folder.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{what}: {path} is a folder: name a file.")
    if not path.is_file():
        raise FileNotFoundError(f"{what}: there is no file {path}. {similar(path)}".rstrip())
    return path


def similar(path, otherwise="", known=()):
    """A sentence for a path that is not there: what is most like it.

    Args:
        path: a path. Each part of it that is not there is compared with what lies in its place, without regard to case.
        otherwise: the sentence where nothing is alike.
        known: names that may be given in the place of a path, which come first.
    """
    near = next(iter(difflib.get_close_matches(str(path), known, n=1)), None)
    if near is None:
        with contextlib.suppress(OSError):  # a folder that can't be listed, a name that is too long
            near = _similar(pathlib.Path(path).expanduser())
    return f'Did you mean "{near}"?' if near else otherwise


def _similar(path):
    """The most similar path that is there, as deep as one is; None where not even its first part is alike."""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    names = {entry.name.casefold(): entry for entry in missing.parent.iterdir()}
    near = difflib.get_close_matches(missing.name.casefold(), names, n=1)
    if not near:
        return None
    found = names[near[0]]
    whole = found / path.relative_to(missing)
    return whole if whole.exists() else found if not found.is_dir() else _similar(whole) or found


# Writing.


@contextlib.contextmanager
def replacing(path, sealed=False, keep=None):
    """The name of a file to write, which takes the place of `path` when it is whole.

    It lies in the same folder and has the same suffix, reaches the disk before it is renamed, and is removed where
    anything fails: under `path` stands the old file or the new one, at every moment. A process that is killed leaves
    the unfinished file behind, for `remove_unfinished`.

    Args:
        path: of the file. A link is replaced, not what it points to: a folder of someone else's may hold one.
        sealed: whether the file is a zip file (`.npz`, `.keras`) that gets a checksum: see `seal`.
        keep: another path, which the file that is replaced gets.

    Raises:
        OSError: a sentence; the disk is full, or the folder can't be written.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        raise IsADirectoryError(f"{path} is not a file, so no file can take its place: name another one.")
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sealed:
            seal(temporary)
        _to_disk(temporary)
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(temporary, path)
        _to_disk(path.parent)
    except OSError as error:
        stays = "what stood there before is still there" if path.exists() else "nothing is there"
        told = OSError(f"{path} could not be written: {error.strerror or error}; {stays}.")
        told.errno = error.errno
        raise told from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _beside(path):
    # The suffix stays, for it says what is written; the process, for two may write a file at a time.
    return path.with_name(f".{path.stem}{_UNFINISHED}{os.getpid()}{path.suffix}")


def _to_disk(path):
    if path.is_dir() and os.name == "nt":  # folders can't be opened there
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that knows no such thing for folders
            raise
    finally:
        os.close(opened)


def _keep(path, kept):
    """Gives a file a second name, which its content keeps when the first goes to another file."""
    temporary = _beside(kept)
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(path, temporary)
            _to_disk(temporary)
        os.replace(temporary, kept)
    finally:
        temporary.unlink(missing_ok=True)  # a rename of one file to itself does nothing


def previous_of(path):
    """Where the state before the one in `path` is kept."""
    return path.with_name(path.name + ".previous")


def remove_unfinished(path):
    """Removes what processes that were killed left of files in a folder, or of one file.

    Only for who holds the `Lock` of what is written there: another process may be writing.
    """
    path = pathlib.Path(path)
    folder, stem = (path, "*") if path.is_dir() else (path.parent, _escaped(path.stem))
    for left in folder.glob(f".{stem}{_UNFINISHED}*"):
        left.unlink(missing_ok=True)


def _escaped(name):
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def write_text(path, text, errors="strict"):
    """Writes a file of text in UTF-8; `errors` as of `str.encode`."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors))


def write_json(path, content):
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path):
    """What a file of JSON holds; raises `DamagedFile` for another."""
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged, or no JSON: {error}.") from error


def save_model(model, path):
    """Saves a Keras model as a `.keras` file, with a checksum; any Keras loads it."""
    from keras_ssl.keras_compat import saved_for_any_backend

    with replacing(path, sealed=True) as temporary, saved_for_any_backend(model):
        model.save(temporary)


def load_model(path):
    """Loads a `.keras` file, which may come from anywhere: a damaged one is named, and no code in it is run.

    Raises:
        DamagedFile: the file is cut off, or bytes of it have changed.
        ValueError: it is no model, or one of classes that are not known here.
    """
    path = pathlib.Path(path).expanduser()
    check(path)
    import keras

    try:
        # A Lambda is code: only a program that calls keras.config.enable_unsafe_deserialization takes it.
        return keras.models.load_model(path, safe_mode=True)
    except Exception as error:  # whatever Keras and h5py make of a file that some other program wrote
        # Keras names the class in the first line, and what is wrong with it in the next.
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = " ".join(lines[:2])[:400].strip().rstrip(".")
        raise ValueError(f"{path} can't be loaded as a Keras model: {reason}.") from error


# Checksums.


def seal(path):
    """Writes the checksum of a zip file (`.npz`, `.keras`) into its comment, which every reader of zip files skips.

    A zip file has checksums of its own, but not of its table of contents, and its readers do not ask for all of them.
    """
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write((len(_MARK) + 2 * _DIGEST).to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST)).hexdigest()
        file.write(_MARK + digest.encode())


def check(path):
    """Refuses a zip file that is cut off or has other bytes than were written.

    Returns:
        Whether it has a checksum of `seal`. Without one, as of other programs, the checksums of its parts are compared.

    Raises:
        DamagedFile: says what is wrong.
    """
    length = len(_MARK) + 2 * _DIGEST
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - length - 22))
        tail = file.read()
        end, comment = tail[:22], tail[22:]
        if end[:4] == _END and end[20:] == length.to_bytes(2, "little") and comment.startswith(_MARK):
            file.seek(0)
            if _digest_of(file, size - length) != comment[len(_MARK) :]:
                raise DamagedFile(f"{path} is damaged: its checksum is another one than when it was written.")
            return True
        if tail[-22:-18] != _END or tail[-2:] != b"\0\0":
            raise DamagedFile(f"{path} is damaged, or of another kind: it does not end as such a file ends.")
        try:
            with zipfile.ZipFile(file) as parts:
                broken = parts.testzip()
        except Exception as error:  # whatever zipfile and its decompressors make of other bytes
            raise DamagedFile(f"{path} is damaged: {error}.") from error
        if broken:
            raise DamagedFile(f"{path} is damaged: the checksum of {broken!r} in it is another one.")
        return False


def _digest_of(file, size):
    digest = hashlib.blake2b(digest_size=_DIGEST)
    while size > 0:
        part = file.read(min(size, 1 << 20))
        digest.update(part)
        size -= len(part)
    return digest.hexdigest().encode()


# One run at a time.


class Lock:
    """Keeps a second run from writing what one writes already.

    The operating system holds it for the process, and gives it up when the process ends, however it ends: a run that
    was killed leaves a file behind, and nothing that stops the next run. Where there are no such locks nothing is
    refused: on Windows without a word, on a file system without them (some of the network) with a warning.

    Args:
        path: of a file that is there while the lock is held.
        what: that the other run writes, for the error.
    """

    def __init__(self, path, what):
        self.path, self.what, self._file = pathlib.Path(path), what, None

    def __enter__(self):
        if self._file is not None or fcntl is None:
            return self
        key = self.path.resolve()
        if key in _HELD:  # a lock of the system is the process': it would be given twice
            raise BlockingIOError(f"{self.what} is being written by another run in this process: wait for its end.")
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = open(self.path, "a+", encoding="utf-8")  # open as long as it is held
            except OSError as error:
                told = OSError(f"{self.what} can't be written: {error.strerror or error} ({self.path.parent}).")
                told.errno = error.errno
                raise told from error
            if not self._locked(file):
                return self
            # Whoever held it may have removed it since it was opened.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    break
            file.close()
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        self._file, _HELD[key] = file, self
        return self

    def _locked(self, file):
        try:
            # Not flock, which a child that outlives a killed run would go on holding.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(
                    f"{self.what} is being written by another run, {holder}: wait for its end, or name another one."
                ) from None
        warnings.warn(f"{self.path} can't be locked on this file system: see to it that no other run writes there.")
        return False

    def __exit__(self, *error):
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what a full disk could not take of the line in it
                self._file.close()
            _HELD.pop(self.path.resolve(), None)
            self._file = None


_HELD = weakref.WeakValueDictionary()  # locks of this process, by path


# Values for another process.


def write_values(path, values):
    """Writes numbers, strings, arrays, None, and dicts, lists and tuples of them, as arrays that need no pickle."""
    import numpy as np

    arrays = []

    def encode(value):
        if value is None or isinstance(value, (bool, int, float, str)):
            return ["value", value]
        if isinstance(value, dict):
            return ["dict", [[encode(key), encode(one)] for key, one in value.items()]]
        if isinstance(value, (list, tuple)):
            return ["list" if isinstance(value, list) else "tuple", [encode(one) for one in value]]
        array = np.asarray(value)
        array = array.astype("float32") if array.dtype.kind == "V" else array  # numpy's files don't know bfloat16
        if array.dtype.hasobject:
            raise TypeError(f"Only numbers, strings and arrays go to another process; this is {value!r}.")
        arrays.append(array)
        return ["array", len(arrays) - 1]

    kind = json.dumps(encode(values))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, kind=kind, **{str(number): array for number, array in enumerate(arrays)})


def read_values(path):
    """What `write_values` wrote."""
    import numpy as np

    with np.load(path, allow_pickle=False) as file:

        def decode(node):
            kind, content = node
            if kind == "value":
                return content
            if kind == "array":
                return file[str(content)]
            if kind == "dict":
                return {decode(key): decode(one) for key, one in content}
            return (list if kind == "list" else tuple)(decode(one) for one in content)

        return decode(json.loads(str(file["kind"])))
