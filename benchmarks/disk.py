"""A folder of JPEG files, streamed: the loader alone, and to the finished step of SimCLR, beside Lightly's.

    python benchmarks/disk.py --peer_python=peers/bin/python --folder=photos

`--folder` holds photographs in folders of classes. `--make=FOLDER` first writes the center of each at 256 px into
that folder, as JPEG files of quality 90, and reads those. Without `--folder` the photographs are the bundled ones,
of 64 px, enlarged. The tables:

- the loader alone: pictures that are decoded and brought to one size, a second;
- views that only flip, from pictures held at the view's size: what the loader and the step cost;
- SimCLR's views from whole pictures of 256 px, as Lightly does it: the whole.

`--part=pixels` shows what `reducing_gap` does to pixels and time, on two photographs of 640×427 of scikit-learn, and on
the same enlarged to a camera's size.

Lightly: `LightlyDataset`, a `DataLoader` of two workers that stay alive, the same network in torch, channels last, one
thread (with two it takes 2.5 times the CPU time).
Both train `resnet8` of width 16 with a projector of two layers, NT-Xent and SGD, in float32.
"""

import argparse
import os
import pathlib
import re
import tempfile
import time

import side_by_side
from side_by_side import Contender

BATCH = 128


# Ours.


def _images(folder, size, pictures, kept=0, **options):
    """The pictures of a folder on disk, of which `kept` are in memory once they were read."""
    import numpy as np

    import keras_ssl
    from keras_ssl.data.cache import PictureCache

    images = keras_ssl.data.load(folder, image_size=size, max_bytes=0, **options).train.images
    images = images.only(np.sort(np.random.default_rng(0).permutation(len(images))[:pictures]))
    a_picture = int(np.prod(images.shape[1:]))
    images.cache = PictureCache(int(kept * len(images)) * a_picture, a_picture)
    return images


def our_loader(folder, size, pictures, kept=0, **options):
    from keras_ssl.data import ArrayBatches

    batches = ArrayBatches(_images(folder, size, pictures, kept, **options), BATCH)

    def run():
        with batches.reading_ahead():
            rows = sum(len(batches[index]) for index in range(batches.num_batches))
        batches.epoch += 1
        return rows

    return run


def our_fit(folder, size, pictures, views, kept=0, **options):
    import keras

    import keras_ssl

    images = _images(folder, size, pictures, kept, **options)
    flips = [keras_ssl.augment.RandomHorizontalFlip()]
    backbone = keras_ssl.backbones.resnet8((96, 96, 3), width=16, pooling="avg")
    policy = keras_ssl.augment.Views(flips, flips) if views == "flips" else keras_ssl.augment.simclr(96)
    model = keras_ssl.SimCLR(backbone, policy)
    model.compile(keras.optimizers.SGD(0.01))
    epoch = [0]

    def run():
        model.fit(images, batch_size=BATCH, epochs=epoch[0] + 1, initial_epoch=epoch[0], verbose=0)
        epoch[0] += 1
        return len(images) // BATCH * BATCH

    return run


# Lightly's.


def _their_batches(folder, transform, pictures):
    import numpy as np
    import torch
    from lightly.data import LightlyDataset

    dataset = LightlyDataset(str(folder), transform=transform)
    rows = np.random.default_rng(0).permutation(len(dataset))[:pictures].tolist()
    return torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, rows),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
    )


def their_loader(folder, size, pictures):
    from torchvision import transforms

    resize = [] if size is None else [transforms.Resize(size), transforms.CenterCrop(size)]
    batches = _their_batches(folder, transforms.Compose([*resize, transforms.PILToTensor()]), pictures)
    return lambda: sum(len(batch[0]) for batch in batches)


def their_network():
    from torch import nn

    def convolution(inputs, filters, kernel, stride):
        layer = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(filters))

    class Block(nn.Module):
        def __init__(self, inputs, filters, stride):
            super().__init__()
            self.first = convolution(inputs, filters, 3, stride)
            self.second = convolution(filters, filters, 3, 1)
            same = stride == 1 and inputs == filters
            self.shortcut = nn.Identity() if same else convolution(inputs, filters, 1, stride)

        def forward(self, x):
            return (self.second(self.first(x).relu()) + self.shortcut(x)).relu()

    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(convolution(3, 16, 3, 2), nn.ReLU(), *blocks, *pool)


def their_fit(folder, size, pictures, views, threads=None):
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from lightly.transforms.multi_view_transform import MultiViewTransform
    from torchvision import transforms

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    transform = SimCLRTransform(input_size=96)
    if views == "flips":
        steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.RandomHorizontalFlip()]
        one = transforms.Compose([*steps[2:], transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
        # Decoded and resized once for both views.
        transform = transforms.Compose([*steps[:2], MultiViewTransform([one, one])])
    batches = _their_batches(folder, transform, pictures)
    model = torch.nn.Sequential(their_network(), SimCLRProjectionHead(64, 64, 128))
    model = model.to(memory_format=torch.channels_last).train()
    loss_of = NTXentLoss(0.1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def run():
        rows = 0
        for (a, b), *_ in batches:
            both = torch.cat([a, b]).contiguous(memory_format=torch.channels_last)
            loss = loss_of(*model(both).chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rows += len(a)
        return rows

    return run


# What `reducing_gap` does.


def pixels():
    """Prints how far pixels lie from those of the whole file, in 255ths, and the time of a picture."""
    import numpy as np
    import sklearn.datasets
    from PIL import Image, ImageOps

    from keras_ssl.data.pictures import Decoder

    folder = pathlib.Path(sklearn.datasets.__file__).parent / "images"
    with tempfile.TemporaryDirectory() as temporary:
        for scale, sizes in ((1, (32, 48, 64, 96, 128, 192)), (6, (96, 224))):
            paths = []
            for source in sorted(folder.glob("*.jpg")):
                picture = Image.open(source)
                large = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
                paths.append(pathlib.Path(temporary) / f"{source.stem}-{scale}.jpg")
                large.save(paths[-1], quality=92)
            print(f"\n| {large.width}×{large.height} to | bicubic | gap 3 | gap 2 | gap 1 | ms whole, gap 3, 2, 1 |")
            print("|---|---|---|---|---|---|")
            for size in sizes:
                decoders = [Decoder((size, size), 3, reducing_gap=gap) for gap in (None, 3.0, 2.0, 1.0)]
                whole, *others = [np.stack([one(path) for path in paths]).astype("float32") for one in decoders]
                bicubic = [ImageOps.fit(Image.open(path), (size, size), Image.Resampling.BICUBIC) for path in paths]
                cells = []
                for other in (np.stack([np.asarray(one) for one in bicubic]), *others):
                    error = np.abs(other - whole)
                    cells.append(f"{error.mean():.2f} ({np.percentile(error, 99):.0f}, {error.max():.0f})")
                times = [min(_seconds(one, paths) for _ in range(5)) * 1e3 for one in decoders]
                print(f"| {size} | {' | '.join(cells)} | {', '.join(f'{time:.1f}' for time in times)} |", flush=True)


def _seconds(decoder, paths):
    start = time.process_time()
    for _ in range(3):
        for path in paths:
            decoder(path)
    return (time.process_time() - start) / 3 / len(paths)


WORK = {"our_loader": our_loader, "our_fit": our_fit, "their_loader": their_loader, "their_fit": their_fit}


# The tables.


def make(source, target):
    """Writes the center of each photograph of a folder at 256 px, or of the bundled ones, as JPEG files."""
    import numpy as np
    from PIL import Image, ImageOps

    import keras_ssl

    options = {"image_size": 256} if source else {}
    train = keras_ssl.data.load(source or "clothes_sample", **options).train
    for number, image in enumerate(train.images):
        label = int(train.labels[number]) if train.labels is not None else 0
        folder = pathlib.Path(target) / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = ImageOps.fit(Image.fromarray(np.asarray(image)), (256, 256), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:05}.jpg", quality=90)
    return str(target)


def loader_rows(given):
    """`{work: [Contender]}` of the loader alone."""
    peer = {"python": given.peer_python}
    quiet = {"environment": {"KERAS_BACKEND": "torch"}}  # which takes no part
    rows = {}
    for work, size in (("as in the file, 256 px", None), ("resized to 192 px", 192), ("resized to 96 px", 96)):
        options = {"folder": given.folder, "size": size, "pictures": given.pictures}
        faster = {**options, "reducing_gap": 1.0}
        half, whole = {**options, "kept": 0.5}, {**options, "kept": 1.0}
        rows[work] = [
            Contender("Lightly", "their_loader", options, **peer),
            Contender("ours", "our_loader", options, **quiet),
            Contender("reducing_gap=1", "our_loader", faster, **quiet),
            Contender("half of them kept", "our_loader", half, **quiet),
            Contender("all kept", "our_loader", whole, **quiet),
        ]
    return rows


def step_rows(given):
    """`{work: [Contender]}` to the finished step."""
    rows = {}
    for work, views, size, kept in (
        ("flips, held at 96 px", "flips", 96, 0),
        ("flips, held at 96 px, kept", "flips", 96, 1),
        ("SimCLR's views, from 256 px", "simclr", 256, 0),
        ("SimCLR's views, from 256 px, kept", "simclr", 256, 1),
    ):
        options = {"folder": given.folder, "size": size, "pictures": given.pictures, "views": views}
        # With two workers beside it, torch is at its best with one thread: more wait for each other by spinning. Ours
        # on torch gets one as well.
        rows[work] = [Contender("Lightly", "their_fit", {**options, "threads": 1}, given.peer_python)]
        for backend in given.backends.split(","):
            environment = {"KERAS_BACKEND": backend, **({"OMP_NUM_THREADS": "1"} if backend == "torch" else {})}
            rows[work].append(
                Contender(f"ours, {backend}", "our_fit", {**options, "kept": kept}, environment=environment)
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer_python", help="the interpreter in which Lightly is installed")
    parser.add_argument("--folder", help="photographs; without it the bundled ones")
    parser.add_argument("--make", help="write them at 256 px into this folder, and read it")
    parser.add_argument("--pictures", type=int, default=1_536, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", default="0,1", help="numbers of the cores")
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--only", default="", help="rows whose name this regular expression finds")
    parser.add_argument("--part", choices=("loader", "step", "both", "pixels"), default="both")
    parser.add_argument("--picture", help="draw the table of the steps into this file")
    given = parser.parse_args()
    if given.part == "pixels":
        pixels()
        return
    if not given.peer_python:
        parser.error("--peer_python: the interpreter in which Lightly is installed")
    cores = [int(core) for core in given.cores.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        if given.make or not given.folder:
            given.folder = make(given.folder, given.make or temporary)
        for name, rows in (("loader", loader_rows(given)), ("step", step_rows(given))):
            table = {}
            for work, contenders in rows.items():
                if given.part not in (name, "both") or not re.search(given.only, work):
                    continue
                table[work] = side_by_side.measure(__file__, contenders, given.rounds, cores)
                for kind in ("cpu", "wall"):
                    if len(table) == 1 and kind == "cpu":
                        print("\n" + side_by_side.header(table[work], name), flush=True)
                    print(side_by_side.row(f"{work}, {kind}", table[work], "Lightly", kind), flush=True)
            if name == "step" and table and given.picture:
                side_by_side.draw(table, "Lightly", given.picture, "JPEG files of 256 px to the finished step at 96 px")
    print("\n" + side_by_side.machine(("tensorflow", "jax", "torch", "keras", "pillow")))


if __name__ == "__main__":
    side_by_side.serve_if_asked(WORK)
    main()
