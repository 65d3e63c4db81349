"""torch: one device, and a random generator of its own."""

import torch

__all__ = ["check_devices", "get_rng_state", "set_rng_state"]


def check_devices(model):
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise ValueError(
            "fit: a torch.distributed process group is initialized, and keras_ssl trains on one device with torch: "
            "each process would train a model of its own on its own negatives. For several devices use "
            "KERAS_BACKEND=tensorflow or jax (docs/distributed.md); for one, don't call init_process_group."
        )


def get_rng_state():
    # Keras' Dropout without a seed draws from torch's own generator.
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states).numpy()


def set_rng_state(state):
    if state is None:
        return
    state, on_host = torch.from_numpy(state), torch.get_rng_state().numel()
    torch.set_rng_state(state[:on_host])
    if torch.cuda.is_available() and len(state) > on_host:
        torch.cuda.set_rng_state(state[on_host:])
