"""Images a second of the whole `fit` on photographs in memory, beside the same in torch with Lightly's transforms.

    python benchmarks/fit.py --peer_python=peers/bin/python

SimCLR with `resnet8` of width 16 on photographs of `--source` px, views of 96 px by SimCLR's policy, batches of 128,
SGD, float32, all on one core: views, step and everything between them. Lightly's photographs are Pillow images in
memory, its `DataLoader` has no worker, for there is one core, and its network is channels-last. `--batches` of each
round are an epoch. The photographs are the bundled ones, enlarged.
"""

import argparse

import disk
import side_by_side

BATCH = 128


def photographs(source, batches):
    """uint8 `(BATCH · batches, source, source, 3)`."""
    import numpy as np
    from PIL import Image

    import keras_ssl

    images = keras_ssl.data.load("clothes_sample").train.images[: BATCH * batches]
    resized = [Image.fromarray(image).resize((source, source), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in resized])


def ours(source, batches):
    import keras

    import keras_ssl

    images = photographs(source, batches)
    backbone = keras_ssl.backbones.resnet8((96, 96, 3), width=16, pooling="avg")
    model = keras_ssl.SimCLR(backbone)
    model.compile(keras.optimizers.SGD(0.01))
    epoch = [0]

    def run():
        model.fit(images, batch_size=BATCH, epochs=epoch[0] + 1, initial_epoch=epoch[0], verbose=0)
        epoch[0] += 1
        return len(images)

    return run


def theirs(images):
    import numpy as np
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    torch.set_num_threads(1)
    pictures = [Image.fromarray(image) for image in np.load(images)]
    transform = SimCLRTransform(input_size=96)

    class InMemory(torch.utils.data.Dataset):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, index):
            return transform(pictures[index])

    batches = torch.utils.data.DataLoader(InMemory(), batch_size=BATCH, shuffle=True, drop_last=True)
    model = torch.nn.Sequential(disk.their_network(), SimCLRProjectionHead(64, 64, 128))
    model = model.to(memory_format=torch.channels_last).train()
    loss_of = NTXentLoss(0.1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def run():
        for a, b in batches:
            both = torch.cat([a, b]).contiguous(memory_format=torch.channels_last)
            loss = loss_of(*model(both).chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return BATCH * len(batches)

    return run


WORK = {"ours": ours, "theirs": theirs}


def main():
    import pathlib
    import tempfile

    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer_python", default=None)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--sources", type=int, nargs="+", default=[96, 192])
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--picture", default=None, help="path of a PNG")
    options = parser.parse_args()
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in options.sources:
            images = pathlib.Path(folder) / f"{source}.npy"
            np.save(images, photographs(source, options.batches))
            contenders = [
                side_by_side.Contender("torch + Lightly", "theirs", {"images": str(images)}, options.peer_python)
            ]
            contenders += [
                side_by_side.Contender(
                    f"ours, {name}",
                    "ours",
                    {"source": source, "batches": options.batches},
                    None,
                    {"KERAS_BACKEND": name},
                )
                for name in options.backends
            ]
            figures = side_by_side.measure(__file__, contenders, options.rounds, cores=(options.core,))
            if not table:
                print(side_by_side.header(figures))
            table[f"from {source} px"] = figures
            print(side_by_side.row(f"from {source} px", figures, "torch + Lightly"), flush=True)
    print(side_by_side.machine())
    if options.picture:
        side_by_side.draw(table, "torch + Lightly", options.picture, "fit: SimCLR, resnet8, views of 96 px")


if __name__ == "__main__":
    side_by_side.serve_if_asked(WORK)
    main()
