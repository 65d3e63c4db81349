"""What `keras-ssl inspect` says of a folder of pictures, before anything is trained on it."""

import collections
import hashlib
import pathlib

import numpy as np

from keras_ssl.data.folders import FolderOptions, list_labeled, note_classes
from keras_ssl.data.labels import means_none
from keras_ssl.data.listing import shown
from keras_ssl.data.progress import Progress

_MOST_ROWS = 20  # of a table on the terminal; --json has all
_NO_LABEL = "(no label)"


def describe(source, options):
    """Prints what lies in a folder, and gives it as a dict for --json."""
    root = pathlib.Path(source).expanduser()
    options = FolderOptions(**options, verbose=1)
    found = list_labeled(root, options, lambda what, total: Progress(what, total))
    note_classes(found)
    copies = _copies(found)
    result = {
        "folder": str(found.root),
        "notes": found.notes,
        "splits": {name: _counts(pictures) for name, pictures in found.splits.items()},
        **_kinds(found),
        "left_out": [{"file": shown(path), "reason": reason} for path, reason in found.left_out],
        "hidden": found.hidden,
        "other_files": {shown(suffix): count for suffix, count in found.others.items()},
        "copies": copies,
    }
    _print(result, root)
    return result


def _counts(pictures):
    labels = [picture.label for picture in pictures]
    counts = collections.Counter(_NO_LABEL if means_none(label) else str(label) for label in labels)
    return {"pictures": len(pictures), "classes": dict(sorted(counts.items()))}


def _kinds(found):
    headers = [picture.header for picture in found.pictures]
    if not headers:
        return {}
    sizes = np.array([header.size for header in headers])
    return {
        "sizes": {
            "smallest": sizes[np.argmin(sizes.prod(axis=1))].tolist(),
            "median": [int(side) for side in np.median(sizes, axis=0)],
            "largest": sizes[np.argmax(sizes.prod(axis=1))].tolist(),
            "different": len(np.unique(sizes, axis=0)),
        },
        "formats": dict(collections.Counter(header.format for header in headers).most_common()),
        "modes": dict(collections.Counter(header.mode for header in headers).most_common()),
        "gray": sum(header.gray for header in headers),
        "transparent": sum(header.transparent for header in headers),
        "rotated": sum(header.rotated for header in headers),
        "more_than_8_bits": sum(header.deep for header in headers),
        "several_frames": sum(header.frames > 1 for header in headers),
    }


def _copies(found):
    """Files of the same content: a list of groups of `[split, path]`. Files of another length are not read."""
    by_length = collections.defaultdict(list)
    for split, pictures in found.splits.items():
        for picture in pictures:
            by_length[picture.path.stat().st_size].append((split, picture.path))
    groups = collections.defaultdict(list)
    for alike in by_length.values():
        for split, path in alike if len(alike) > 1 else ():
            groups[hashlib.blake2b(path.read_bytes(), digest_size=16).digest()].append([split, shown(path)])
    return [group for group in groups.values() if len(group) > 1]


def _print(result, root):
    total = sum(split["pictures"] for split in result["splits"].values())
    print(f"{root}: {total:,} pictures")
    for note in result["notes"]:
        print(f"  {note}")
    _print_classes(result["splits"])
    if "sizes" in result:
        sizes = {name: "×".join(map(str, size)) for name, size in result["sizes"].items() if name != "different"}
        print(
            f"sizes     {result['sizes']['different']:,}: from {sizes['smallest']} to {sizes['largest']}, median "
            f"{sizes['median']} (height × width)"
        )
        for name in ("formats", "modes"):
            print(f"{name:8}  " + ", ".join(f"{kind} {count:,}" for kind, count in result[name].items()))
        names = ("transparent", "rotated", "more_than_8_bits", "several_frames")
        print("of them   " + ", ".join(f"{name.replace('_', ' ')} {result[name]:,}" for name in names))
    print(f"hidden    {result['hidden']:,} files and folders, whose names begin with . or __")
    if result["other_files"]:
        print("others    " + ", ".join(f"{suffix} {count:,}" for suffix, count in result["other_files"].items()))
    _print_some("left out", [f"{one['file']}: {one['reason']}" for one in result["left_out"]])
    across = [group for group in result["copies"] if len({split for split, _ in group}) > 1]
    within = [group for group in result["copies"] if len({split for split, _ in group}) == 1]
    _print_some("same content in two splits", [" = ".join(path for _, path in group) for group in across])
    _print_some("same content in one split", [" = ".join(path for _, path in group) for group in within])


def _print_classes(splits):
    """A table of classes and splits, 80 columns wide at most."""
    classes = list(dict.fromkeys(name for split in splits.values() for name in split["classes"]))
    classes.sort(key=lambda name: (name == _NO_LABEL, name))
    written = {name: shown(name) for name in classes}
    width = min(40, max([len("class"), *map(len, written.values())]))
    print(f"\n{'class':{width}}" + "".join(f"{name:>12}" for name in splits))
    for name in classes[:_MOST_ROWS]:
        short = written[name] if len(written[name]) <= width else written[name][: width - 1] + "…"
        print(f"{short:{width}}" + "".join(f"{split['classes'].get(name, 0):>12,}" for split in splits.values()))
    if len(classes) > _MOST_ROWS:
        print(f"and {len(classes) - _MOST_ROWS:,} more: --json lists all")
    print(f"{'all':{width}}" + "".join(f"{split['pictures']:>12,}" for split in splits.values()) + "\n")


def _print_some(what, lines):
    print(f"{what}: {len(lines):,}")
    for line in lines[:5]:
        print(f"  {line}")
    if len(lines) > 5:
        print(f"  and {len(lines) - 5:,} more: --json lists all")
