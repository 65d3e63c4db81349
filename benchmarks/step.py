"""Images a second of the training step of SimCLR, beside the same network in plain torch with Lightly's loss.

    python benchmarks/step.py --peer_python=peers/bin/python

ResNet-18 with the stem for small images, of `--widths`, images of 32 px, AdamW. Batches hold ready views, so that the
step alone is measured, as `fit` runs it by default: ours on TensorFlow, JAX and torch; the peer channels-last, with
`torch.autocast` for bfloat16. Where there is an NVIDIA GPU, all run on it, one after another, and figures are of wall
time. `--with_views` adds contenders of ours that make SimCLR's views of uint8 images within the step, as `fit(images)`
does. `--cost` measures ours alone against batch, size of the images, views and width: see `step_cost.py`.
"""

import argparse
import os
import shutil
import sys

import side_by_side


def views_of(batch, size, views=2):
    import numpy as np

    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, 256, (batch, size, size, 3)).astype("float32") for _ in range(views))


def ours(width, bfloat16, batch, size, steps, with_views=False, **compile_options):
    """`fit` of one epoch with `steps` steps; the first calls of `serve_if_asked` trace and compile."""
    import keras

    import keras_ssl

    keras.utils.set_random_seed(0)
    if bfloat16:
        keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = keras_ssl.backbones.resnet18((size, size, 3), width=width)
    model = keras_ssl.SimCLR(backbone)
    model.compile(keras.optimizers.AdamW(1e-3), **compile_options)
    views = views_of(batch * steps, size)
    data = views[0].astype("uint8") if with_views else {"views": views}

    def run():
        model.fit(data, batch_size=batch, epochs=1, verbose=0)
        return batch * steps

    return run


def peer(width, bfloat16, batch, size, steps):
    """The same network, projector, loss and optimizer in torch."""
    import torch
    from lightly.loss import NTXentLoss
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def convolution(inputs, outputs, kernel, stride):
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first, self.second = convolution(inputs, outputs, 3, stride), convolution(outputs, outputs, 3, 1)
            changes = stride != 1 or inputs != outputs
            self.skip = convolution(inputs, outputs, 1, stride) if changes else nn.Identity()

        def forward(self, x):
            return nn.functional.relu(
                self.second(nn.functional.relu(self.first(x), inplace=True)) + self.skip(x), inplace=True
            )

    blocks, channels = [], width
    for stage in range(4):
        for place in range(2):
            stride = 2 if stage and not place else 1
            blocks.append(Block(channels, width * 2**stage, stride))
            channels = width * 2**stage
    projector = [nn.Linear(channels, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU()]
    projector += [nn.Linear(channels, 128, bias=False), nn.BatchNorm1d(128)]
    network = nn.Sequential(
        convolution(3, width, 3, 1), nn.ReLU(inplace=True), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *projector
    )
    network = network.to(device, memory_format=torch.channels_last)
    criterion = NTXentLoss(temperature=0.1)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.004)
    data = [torch.from_numpy(view).permute(0, 3, 1, 2) for view in views_of(batch * steps, size)]

    def run():
        for start in range(0, batch * steps, batch):
            both = torch.cat([view[start : start + batch].to(device) for view in data]) / 127.5 - 1.0
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                embedded = network(both)
            loss = criterion(*embedded.float().chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
        return batch * steps

    return run


# All contenders live at a time: none may take the whole memory of a GPU.
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
WORK = {"ours": ours, "peer": peer}


def contenders(options, peer_python, backends, with_views=False):
    found = [side_by_side.Contender("torch + Lightly", "peer", options, peer_python)]
    for name in backends:
        environment = {"KERAS_BACKEND": name, **SHARED_GPU}
        found.append(side_by_side.Contender(f"ours, {name}", "ours", options, None, environment))
        if with_views:
            more = {**options, "with_views": True}
            found.append(side_by_side.Contender(f"ours, {name}, with views", "ours", more, None, environment))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer_python", default=None)
    parser.add_argument("--core", type=int, default=0, help="on which all run, where there is no GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picture", default=None, help="path of a PNG")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--with_views", action="store_true")
    parser.add_argument("--cost", action="store_true", help="see step_cost.py, which has options of its own")
    parser.add_argument("--steps", type=int, default=None, help="of a round; None for 16 at width 16, 2 at 64")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    gpu = shutil.which("nvidia-smi") is not None
    table = {}
    for width in options.widths:
        for kind in options.types:
            steps = options.steps or max(2, 4096 // width**2)  # of an epoch, so that beginning one weighs little
            work = {"width": width, "bfloat16": kind == "bfloat16", "batch": options.batch, "size": options.size}
            figures = side_by_side.measure(
                __file__,
                contenders({**work, "steps": steps}, options.peer_python, options.backends, options.with_views),
                options.rounds,
                cores=None if gpu else (options.core,),
            )
            name = f"width {width}, {kind}"
            if not table:
                print(side_by_side.header(figures))
            table[name] = figures
            print(side_by_side.row(name, figures, "torch + Lightly", "wall" if gpu else "cpu"), flush=True)
    print(side_by_side.machine())
    if options.picture and not gpu:
        side_by_side.draw(table, "torch + Lightly", options.picture, "SimCLR step, ResNet-18, ready views of 32 px")


if __name__ == "__main__":
    side_by_side.serve_if_asked(WORK)
    if "--cost" in sys.argv:
        sys.argv.remove("--cost")
        import step_cost

        step_cost.main()
    else:
        main()
