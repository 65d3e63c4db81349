"""Lightly's part of quality.py: the network in torch, and training by Lightly's losses, heads and transforms.

It runs in a Python of its own, which has torch, torchvision and lightly, and neither Keras nor this library.
"""

import importlib.metadata
import time

import numpy as np
import quality
import torch
from lightly import loss as losses
from lightly.models.modules import heads
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import SimCLRTransform
from quality import FEATURES, METHODS, MOMENTUM, PROTOTYPES, QUEUE, TEMPERATURES, WIDTH
from torch import nn


class Same(nn.Conv2d):
    """A convolution that pads as Keras' "same": with stride 2 an even side gets its one zero at the end."""

    def forward(self, x):
        before_after = []
        for side, kernel, stride in zip(reversed(x.shape[2:]), self.kernel_size, self.stride):
            total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            before_after += [total // 2, total - total // 2]
        if before_after[0] == before_after[1] and before_after[2] == before_after[3]:
            return nn.functional.conv2d(x, self.weight, None, self.stride, (before_after[2], before_after[0]))
        return super().forward(nn.functional.pad(x, before_after))


def convolution(inputs, filters, kernel, stride):
    return nn.Sequential(Same(inputs, filters, kernel, stride, bias=False), nn.BatchNorm2d(filters))


class Block(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.first, self.second = convolution(inputs, filters, 3, stride), convolution(filters, filters, 3, 1)
        same = stride == 1 and inputs == filters
        self.skip = nn.Identity() if same else convolution(inputs, filters, 1, stride)

    def forward(self, x):
        y = nn.functional.relu(self.first(x), inplace=True)
        return nn.functional.relu(self.second(y) + self.skip(x), inplace=True)


def network(channels):
    """`keras_ssl.backbones.resnet8` in torch."""
    blocks = [Block(WIDTH, WIDTH, 1), Block(WIDTH, 2 * WIDTH, 2), Block(2 * WIDTH, 4 * WIDTH, 2)]
    stem = [convolution(channels, WIDTH, 3, 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Method(nn.Module):
    """Student and teacher of a method with Lightly's heads and loss; a call is a step's loss, as in its examples."""

    def __init__(self, name, channels):
        super().__init__()
        self.name = name
        widths = METHODS[name].heads
        self.student = self._student(channels)
        if name in ("BYOL", "MoCo", "DINO"):
            self.teacher = self._student(channels)
            deactivate_requires_grad(self.teacher)
        if len(widths) > 1:
            second = heads.BYOLPredictionHead if name == "BYOL" else heads.SimSiamPredictionHead
            self.predictor = second(widths[0][-1], *widths[1])
        self.criterion = {
            "SimCLR": lambda: losses.NTXentLoss(TEMPERATURES["SimCLR"]),
            "BYOL": losses.NegativeCosineSimilarity,
            "BarlowTwins": losses.BarlowTwinsLoss,
            "VICReg": losses.VICRegLoss,
            "SimSiam": losses.NegativeCosineSimilarity,
            "MoCo": lambda: losses.NTXentLoss(TEMPERATURES["MoCo"], memory_bank_size=(QUEUE, widths[0][-1])),
            "DINO": lambda: losses.DINOLoss(
                PROTOTYPES, student_temp=TEMPERATURES["DINO"][0], teacher_temp=TEMPERATURES["DINO"][1]
            ),
        }[name]()

    def _student(self, channels):
        first = {
            "SimCLR": heads.SimCLRProjectionHead,
            "BYOL": heads.BYOLProjectionHead,
            "BarlowTwins": heads.BarlowTwinsProjectionHead,
            "VICReg": heads.VICRegProjectionHead,
            "SimSiam": heads.SimSiamProjectionHead,
            "MoCo": heads.MoCoProjectionHead,
            "DINO": heads.DINOProjectionHead,
        }[self.name]
        widths = METHODS[self.name].heads[0]
        more = (PROTOTYPES,) if self.name == "DINO" else ()
        return nn.Sequential(network(channels), first(FEATURES, widths[0], widths[-1], *more))

    def begin_with(self, arrays):
        """Takes over Keras' weights, in the teacher as well."""
        tensors = list(self.trained())
        if len(tensors) != len(arrays):
            raise ValueError(f"{self.name}: {len(arrays)} arrays for {len(tensors)} tensors.")
        with torch.no_grad():
            for tensor, array in zip(tensors, arrays):
                if tensor.shape != _turned(array).shape:
                    raise ValueError(f"{self.name}: {_turned(array).shape} for {tuple(tensor.shape)}.")
                tensor.copy_(torch.from_numpy(_turned(array)))
        if hasattr(self, "teacher"):
            self.teacher.load_state_dict(self.student.state_dict())

    def trained(self):
        """Tensors in the order of `quality.our_weights`."""
        for part in (self.student, getattr(self, "predictor", None)):
            for module in part.modules() if part is not None else ():
                for name in ("weight_v", "weight", "bias"):
                    tensor = module._parameters.get(name)
                    if tensor is not None:
                        yield tensor

    def forward(self, a, b):
        if hasattr(self, "teacher"):
            update_momentum(self.student, self.teacher, MOMENTUM)
        return METHODS[self.name].factor * getattr(self, f"_{self.name}")(a, b)

    def _pair(self, a, b):
        return self.criterion(self.student(a), self.student(b))

    _SimCLR = _BarlowTwins = _VICReg = _pair

    def _BYOL(self, a, b):
        p = [self.predictor(self.student(view)) for view in (a, b)]
        with torch.no_grad():
            z = [self.teacher(view) for view in (a, b)]
        return 0.5 * (self.criterion(p[0], z[1]) + self.criterion(p[1], z[0]))

    def _SimSiam(self, a, b):
        z = [self.student(view) for view in (a, b)]
        p = [self.predictor(one) for one in z]
        return 0.5 * (self.criterion(z[0].detach(), p[1]) + self.criterion(z[1].detach(), p[0]))

    def _MoCo(self, a, b):
        query = self.student(a)
        with torch.no_grad():
            key = self.teacher(b)
        return self.criterion(query, key)

    def _DINO(self, a, b):
        with torch.no_grad():
            teacher = [self.teacher(view) for view in (a, b)]
        return self.criterion(teacher, [self.student(view) for view in (a, b)])


def _turned(array):
    """Keras' layout as torch's: kernels of convolutions and of dense layers."""
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _back(tensor):
    array = tensor.detach().numpy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def transform_of(shape):
    """`quality.our_views` by Lightly's `SimCLRTransform`; what it would do with probability 0 is taken out."""
    policy, channels = quality.policy_of(shape), shape[-1]
    made = SimCLRTransform(
        shape[0],
        cj_prob=0.8,
        cj_strength=1.0,
        cj_bright=policy.brightness,
        cj_contrast=policy.contrast,
        cj_sat=policy.saturation,
        cj_hue=policy.hue,
        min_scale=policy.area[0],
        random_gray_scale=policy.gray,
        gaussian_blur=policy.blur,
        normalize={"mean": [0.5] * channels, "std": [0.5] * channels},
    )
    for view in made.transforms:
        steps = view.transform.transforms
        view.transform.transforms = [step for step in steps if getattr(step, "p", getattr(step, "prob", 1)) != 0]
    return made


class InMemory(torch.utils.data.Dataset):
    def __init__(self, images):
        from PIL import Image

        self.pictures = [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images]
        self.transform = transform_of(images.shape[1:])

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, place):
        return self.transform(self.pictures[place])


def begun(name, seed, folder, channels):
    """The method with Keras' weights."""
    model = Method(name, channels)
    with np.load(folder / f"{name}-{seed}-weights.npz") as file:
        model.begin_with([file[key] for key in file.files])
    return model.to(memory_format=torch.channels_last).train()


def run(name, seed, folder, epochs, batch):
    """Trains as quality.our_run does."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # of Lightly's blur
    with np.load(folder / "images.npz") as file:
        train, test = file["train"], file["test"]
    model = begun(name, seed, folder, train.shape[-1])
    loader = torch.utils.data.DataLoader(InMemory(train), batch_size=batch, shuffle=True, drop_last=True)
    steps = epochs * len(loader)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1.0, weight_decay=0.0)
    kept, step, start = [], 0, time.process_time()
    for _ in range(epochs):
        total = 0.0
        for a, b in loader:
            _set_rate(optimizer, quality.rate_at(step, steps, METHODS[name].rate))
            total += _step(model, optimizer, _channels_last(a), _channels_last(b))
            step += 1
        kept.append(total / len(loader) + METHODS[name].offset)
    result = {"cpu_seconds": time.process_time() - start, "steps": steps, "losses": kept}
    versions = [f"{package} {importlib.metadata.version(package)}" for package in ("lightly", "torch", "torchvision")]
    return {**result, "on": ", ".join(versions)}, [features(model.student[0], images) for images in (train, test)]


def _channels_last(images):
    return images.contiguous(memory_format=torch.channels_last)


def _set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group.update(lr=rate, weight_decay=quality.DECAY)


def _step(model, optimizer, a, b):
    loss = model(a, b)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def features(backbone, images, batch=256):
    backbone.eval()
    return np.concatenate(
        [backbone(_scaled(images[start : start + batch])).numpy() for start in range(0, len(images), batch)]
    )


def _scaled(images):
    return _channels_last(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0)


def check(name, seed, folder, rule):
    """As quality.our_check."""
    torch.set_num_threads(1)
    with np.load(folder / "check.npz") as file:
        a, b, bank = file["a"], file["b"], file["bank"]
    model = begun(name, seed, folder, a.shape[-1])
    if name == "MoCo":
        model.criterion.memory_bank.bank = torch.from_numpy(bank)
    trained = [one for one in model.parameters() if one.requires_grad]
    adam = rule == "AdamW"
    optimizer = torch.optim.AdamW(trained, 1.0) if adam else torch.optim.SGD(trained, METHODS[name].check_rate, 0.9)
    found = []
    for step in range(quality.CHECK_STEPS):
        if adam:
            _set_rate(optimizer, quality.rate_at(step, quality.CHECK_STEPS, METHODS[name].rate))
        rows = slice(step * quality.CHECK_BATCH, (step + 1) * quality.CHECK_BATCH)
        found.append(_step(model, optimizer, _scaled(a[rows]), _scaled(b[rows])) + METHODS[name].offset)
    return {"losses": found}, [_back(tensor) for tensor in model.trained()]
