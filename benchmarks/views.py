"""Two views of every image, beside Lightly's: images a second.

    python benchmarks/views.py --peer_python=peers/bin/python

Ours are what `fit` runs: `Views` called on a batch of uint8 inside of the step's function, traced by TensorFlow (by XLA
too where there is a GPU, as Keras' "auto" does), compiled by JAX, eager on torch; and then scaled as our backbones
begin. Lightly's are its own transforms, image by image from `PIL` images in memory and collated, as its loader does.
All are asked for the same operations: area of the crop, jitter, gray, blur, solarization with the same strengths and
probabilities. What Lightly would do with probability 0 (turns, flips upside down) is taken out of its list, and its
crop is bicubic where ours is. Its blur is Pillow's, an approximation by boxes.

The works can be measured in parts: figures are kept in a folder, and the table and the picture are made of all that
are there. On a GPU (`--all_cores --workers=16 --kind=wall`) kornia is a peer too, where it is installed; Lightly's
transforms then run in worker processes.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
from side_by_side import Contender, draw, header, machine, measure, row, serve_if_asked

BATCH = 64
SECONDS = 1.0  # of a round, at least: processors count their time in hundredths
WORKS = {
    f"{policy} {px} px" + (f" from {source} px" if source != px else ""): (policy, px, source)
    for policy, px, source in [
        *(("simclr", px, px) for px in (32, 96, 224)),
        *(("simclr", px, 2 * px) for px in (32, 96, 224)),
        *(("byol", px, px) for px in (96, 224)),
    ]
}
PEER = "Lightly"
PEERS = (PEER, "kornia")
OURS = ("tensorflow", "jax", "torch")


def photographs(count, side):
    """Pictures as smooth as photographs are, uint8 `(count, side, side, 3)`: some code is slower with noise."""
    from PIL import Image

    random = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize((side, side), Image.BICUBIC), dtype="float32")
        pictures.append(np.clip(fine + random.normal(0, 6, fine.shape), 0, 255).astype("uint8"))
    return np.stack(pictures)


def repeated(once, images):
    """A round: `once(number)` until the time is up. The first call tells how often that is."""
    state = {"done": 0, "times": None}

    def turn():
        once(state["done"])
        state["done"] += 1

    def run():
        if state["times"] is None:
            turn()  # traces and compiles
            start = time.perf_counter()
            turn()
            state["times"] = max(1, int(np.ceil(SECONDS / (time.perf_counter() - start))))
        for _ in range(state["times"]):
            turn()
        return images * state["times"]

    return run


def ours(policy, px, source, batch):
    import keras
    from keras import ops

    from keras_ssl import augment

    views = getattr(augment, policy)(px)
    pictures = photographs(batch, source)
    views.build((batch, source, source, 3))
    scale = keras.layers.Rescaling(1 / 127.5, offset=-1)

    def make(images, step):
        rows = ops.arange(len(images), dtype="int32")
        return [scale(view) for view in views(images, rng=augment.RowRNG(0, rows).fold_in(step))]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        make = tf.function(make, jit_compile=bool(tf.config.list_physical_devices("GPU")))
    elif keras.backend.backend() == "jax":
        import jax

        make = jax.jit(make)

    def once(number):
        made = make(ops.convert_to_tensor(pictures), ops.convert_to_tensor(np.int32(number)))
        for view in made:  # an accelerator is done once a number is here
            ops.convert_to_numpy(view[0, 0, 0, 0])

    return repeated(once, batch)


def lightly(policy, px, source, batch, workers=0):
    import torch
    from lightly import transforms
    from PIL import Image

    pictures = [Image.fromarray(picture) for picture in photographs(batch, source)]
    transform = lightly_transform(transforms, policy, px)

    def collate(examples):
        return [torch.stack(view) for view in zip(*examples)]

    if not workers:
        torch.set_num_threads(1)
        return repeated(lambda number: collate([transform(picture) for picture in pictures]), batch)

    class Dataset(torch.utils.data.Dataset):
        def __len__(self):
            return batch * workers

        def __getitem__(self, place):
            return transform(pictures[place % batch])

    loader = torch.utils.data.DataLoader(
        Dataset(), batch, num_workers=workers, collate_fn=collate, persistent_workers=True, pin_memory=True
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def once(number):
        for made in loader:
            for view in made:
                view.to(device)[0, 0, 0, 0].item()

    return repeated(once, batch * workers)


def lightly_transform(transforms, policy, px):
    """Lightly's transform, with the operations of our policy of that name."""
    if policy == "simclr":
        # No blur up to 32 px, as in our policy and in the paper.
        made = transforms.SimCLRTransform(px, gaussian_blur=0.5 if px > 32 else 0.0)
    else:
        module = transforms.byol_transform
        made = module.BYOLTransform(module.BYOLView1Transform(px), module.BYOLView2Transform(px))
    for view in made.transforms:
        steps = view.transform.transforms
        if policy == "byol":
            from torchvision.transforms import InterpolationMode

            steps[0].interpolation = InterpolationMode.BICUBIC
        view.transform.transforms = [step for step in steps if getattr(step, "p", getattr(step, "prob", 1)) != 0]
    return made


def kornia(policy, px, source, batch):
    import kornia.augmentation as K
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = torch.from_numpy(photographs(batch, source))
    strong = policy == "simclr"

    def view(blur, solarize):
        side = max(3, px // 10 // 2 * 2 + 1)
        jitter = (0.8, 0.8, 0.8, 0.2) if strong else (0.4, 0.4, 0.2, 0.1)
        steps = [
            K.RandomResizedCrop((px, px), scale=(0.08, 1.0), resample="bilinear" if strong else "bicubic"),
            K.RandomHorizontalFlip(p=0.5),
            K.ColorJitter(*jitter, p=0.8),
            K.RandomGrayscale(p=0.2),
        ]
        if blur and px > 32:
            steps.append(K.RandomGaussianBlur((side, side), (0.1, 2.0), p=blur))
        if solarize:
            steps.append(K.RandomSolarize(0.0, 0.0, p=solarize))
        normalize = K.Normalize(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
        return K.AugmentationSequential(*steps, normalize).to(device)

    made = (view(0.5, 0), view(0.5, 0)) if strong else (view(1.0, 0), view(0.1, 0.2))

    def once(number):
        images = pictures.to(device).permute(0, 3, 1, 2).float() / 255
        for each in made:
            each(images)[0, 0, 0, 0].item()

    return repeated(once, batch)


WORK = {"ours": ours, "lightly": lightly, "kornia": kornia}


def contender(name, options, work):
    policy, px, source = WORKS[work]
    given = {"policy": policy, "px": px, "source": source, "batch": options.batch}
    if name == PEER:
        return Contender(name, "lightly", {**given, "workers": options.workers}, options.peer_python)
    if name == "kornia":
        return Contender(name, "kornia", given, options.peer_python)
    return Contender(name, "ours", given, None, {"KERAS_BACKEND": name})


def has(python, module):
    """Whether a Python can import a module."""
    return subprocess.run([python or sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", default=",".join(WORKS), help="with commas between; all unless given")
    parser.add_argument("--contenders", default=",".join(OURS), help="of ours, with commas between")
    parser.add_argument("--peer_python", help="the Python that has the peers; this one unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--core", type=int, default=0, help="the core on which all run")
    parser.add_argument("--all_cores", action="store_true", help="run on all cores, as with a GPU")
    parser.add_argument("--workers", type=int, default=0, help="processes of Lightly's loader; 0 for none")
    parser.add_argument("--kind", default="cpu", choices=("cpu", "wall"), help="the time that the table shows")
    parser.add_argument("--output", default="runs/views", help="a folder where the figures are kept")
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    names = [PEER, *options.contenders.split(",")]
    if options.all_cores and has(options.peer_python, "kornia"):
        names.insert(1, "kornia")
    for work in options.works.split(","):
        contenders = [contender(name, options, work) for name in names]
        cores = None if options.all_cores else (options.core,)
        figures = measure(__file__, contenders, options.rounds, cores)
        (folder / f"{work}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(row(work, figures, PEER, options.kind), flush=True)
    files = {work: folder / f"{work}.json" for work in WORKS}
    table = {work: json.loads(file.read_text(encoding="utf-8")) for work, file in files.items() if file.exists()}
    lines = [machine(("tensorflow", "jax", "torch", "keras")), "", header(next(iter(table.values())))]
    lines += [row(work, figures, PEER, options.kind) for work, figures in table.items()]
    (folder / "views.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines))
    title = f"two views of each image, {'all' if options.all_cores else 'one'} of {os.cpu_count()} cores"
    draw(table, PEER, folder / "views.png", title)


if __name__ == "__main__":
    serve_if_asked(WORK)
    main()
