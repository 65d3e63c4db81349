"""The folders that commands write, and the names of the files in them, which stand nowhere else."""

import contextlib
import csv
import io
import os
import pathlib
import shutil

from keras_ssl.files import Lock, previous_of, read_json, remove_unfinished, similar, write_text


class Interrupted(Exception):
    """Ctrl-C, with a message: what is kept in the folder, and how to continue."""


class _Folder:
    def __init__(self, path):
        self.path = pathlib.Path(path).expanduser()
        self.settings_file = self.path / "settings.json"
        self.table = self.path / "table.json"

    def __str__(self):
        return str(self.path)

    @classmethod
    def next_free(cls, what, data):
        """The first of runs/WHAT-DATA-1, runs/WHAT-DATA-2, … that is not there yet."""
        source = pathlib.Path(data).stem or "data"
        folders = (pathlib.Path("runs") / f"{what}-{source}-{number}" for number in range(1, 10_000))
        return cls(next(folder for folder in folders if not folder.exists()))

    @contextlib.contextmanager
    def in_use(self):
        """Keeps other runs from writing into the folder; removes what killed ones left half written."""
        with Lock(self.path / ".lock", f"The folder {self}"):
            remove_unfinished(self.path)
            yield

    @property
    def settings(self):
        """What the run was started with, a dict."""
        return read_json(self.settings_file)


def _write_csv(file, rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(file, text.getvalue(), errors="surrogateescape")


class RunFolder(_Folder):
    """A folder of `keras-ssl pretrain`.

    Attributes:
        path: of the folder.
        settings_file: what the run was started with, written before the first step.
        state, previous_state: the last two states from which a run that was interrupted continues; there only while
            it trains.
        model, backbone: the trained method, and its backbone as plain Keras.
        history, alarms, table: metrics per epoch, sentences of the collapse monitor, accuracies after training.
        report: the page about the run.
        tensorboard: a folder of logs.
        left_out: the pictures that were not used, each with the reason; there only if there are any.
        held_out: the pictures that were not trained on, with their labels; there only where images are files.
        classifier: where `keras-ssl finetune` writes.
    """

    def __init__(self, path):
        super().__init__(path)
        self.state = self.path / "state.npz"
        self.previous_state = previous_of(self.state)
        self.model = self.path / "model.keras"
        self.backbone = self.path / "backbone.keras"
        self.history = self.path / "history.json"
        self.alarms = self.path / "alarms.json"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self.left_out = self.path / "left_out.csv"
        self.held_out = self.path / "held_out.csv"
        self.classifier = self.path / "classifier.keras"

    @classmethod
    def existing(cls, name, flag="--run"):
        """The folder of a run that was started; raises FileNotFoundError for another."""
        folder = cls(name)
        if not folder.path.is_dir():
            hint = similar(folder.path, "Name one that keras-ssl pretrain wrote.")
            raise FileNotFoundError(f"{flag}={name}: there is no such folder. {hint}")
        if not folder.settings_file.is_file():
            raise FileNotFoundError(
                f"{flag}={name} is not a run folder of keras-ssl pretrain: it has no {folder.settings_file.name}."
            )
        return folder

    @classmethod
    def for_output(cls, output, method, data, overwrite):
        """The folder that a run will write into; refuses one with files in it unless `overwrite`."""
        if output is None:
            return cls.next_free(method, data)
        folder = cls(output)
        if folder.path.is_file():
            raise FileExistsError(f"--output={folder} is a file: name a folder.")
        if folder.path.exists() and any(folder.path.iterdir()) and not overwrite:
            if folder.has_state():
                raise FileExistsError(
                    f"--output={folder} holds a run that was interrupted. Continue it with\n"
                    f"  keras-ssl pretrain --resume={folder}\nor name another folder, or add --overwrite."
                )
            raise FileExistsError(f"--output={folder} is not empty: name another folder, or add --overwrite.")
        return folder

    def require(self, file):
        """Refuses a run that was interrupted before it wrote a file: `model` or `backbone`."""
        if file.is_file():
            return
        if self.has_state():
            way = f"The run was interrupted: continue it with keras-ssl pretrain --resume={self}."
        else:
            way = "Name the folder of a finished run, or a file with --backbone."
        raise FileNotFoundError(f"There is no {file}. {way}")

    def has_state(self):
        """Whether a run was interrupted here, and can be continued."""
        return self.state.exists() or self.previous_state.exists()

    def remove_state(self):
        for file in (self.previous_state, self.state):
            file.unlink(missing_ok=True)

    def clear(self):
        """Removes what another run left here, so that none of it is taken for the next run's."""
        self.remove_state()
        files = (self.model, self.backbone, self.alarms, self.history, self.table, self.report)
        files += (self.left_out, self.held_out, self.classifier, self.classifier.with_suffix(".classes.json"))
        for file in (*files, *self.path.glob("copies-*.png")):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.tensorboard, ignore_errors=True)

    def withdraw(self):
        """Removes what a run wrote before its first step, so that the same command begins it anew."""
        self.clear()
        self.settings_file.unlink(missing_ok=True)

    def write_left_out(self, data):
        """Lists the pictures that can't be used, and those that broke while they were trained on."""
        from keras_ssl.data.lazy import pictures_of

        broken = {path: reason for files in pictures_of(data.train.images) for path, reason in files.broken.items()}
        rows = [*data.left_out, *broken.items()]
        if rows:
            _write_csv(self.left_out, [("file", "reason"), *((str(path), reason) for path, reason in rows)])

    def write_held_out(self, data):
        """Lists the pictures that are not trained on."""
        test = data.test
        if test is None or test.paths is None:
            return
        labels = [test.name_of(test.labels[row]) if known else "" for row, known in enumerate(test.has_label)]
        _write_csv(self.held_out, [("file", "label"), *zip(map(str, test.paths), labels)])

    def held_out_rows(self, train, source):
        """The rows of pictures that the run held out, ascending; None where no list of them was written.

        Args:
            train: the `Split` that it drew them from.
            source: the folder of the pictures, the run's or a copy of it.
        """
        if not self.held_out.is_file() or train.paths is None:
            return None
        with self.held_out.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            listed = [row["file"] for row in csv.DictReader(file)]
        there = {_below(path, source): row for row, path in enumerate(train.paths)}
        names = [_below(path, self.settings["data"]) for path in listed]
        missing = [name for name in names if name not in there]
        if missing:
            raise ValueError(
                f"{len(missing):,} of the {len(names):,} pictures that the run held out are not in {source}, such as "
                f"{missing[0]}. Give --data with the images of the run, as {self.held_out} lists them."
            )
        return sorted(there[name] for name in names)

    def check_same_images(self, data):
        """Refuses images that are not those of the run, because its held-out images can't be told among others.

        Args:
            data: as `keras_ssl.data.split.hold_out` gives it.
        """
        from keras_ssl.data.split import fingerprint

        now, then = len(data.train), self.settings["training_images"][0]
        if now != then:
            raise ValueError(
                f"There are {now:,} images to train on, but the run was trained on {then:,}, so what it held out can't "
                "be told any more. Give --data with the images of the run."
            )
        kept = self.settings.get("fingerprint")  # runs of the first versions have none
        if kept is not None and kept != fingerprint(data.train):
            raise ValueError(
                f"There are {now:,} images to train on, as many as the run was trained on, but some have another name, "
                "or are other images, so what it held out can't be told any more. Give --data with the images of the "
                "run."
            )


def _below(path, source):
    """A picture's name from the folder on, so that it is the same in a copy."""
    return os.path.relpath(path, os.path.expanduser(source))


class ComparisonFolder(_Folder):
    """A folder of `keras-ssl compare`: for each method a file of results and a backbone."""

    def result(self, method):
        return self.path / f"{method}.json"

    def backbone(self, method):
        return self.path / f"{method}.keras"
