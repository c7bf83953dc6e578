"""What to go on with when memory runs out."""

from __future__ import annotations

from nr_tracking.config import PRESETS, Config, ConfigError, chosen_settings, load_config
from nr_tracking.types import InputError

# torch.OutOfMemoryError of a GPU is a RuntimeError; the allocator of the CPU raises a plain one, and says it otherwise:
# "can't allocate memory" on Linux, "not enough memory" elsewhere.
_SAID = ("out of memory", "allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of this computer or of the GPU."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in said for text in _SAID))


def smaller_config(config: Config) -> Config | None:
    """The same settings with the next smaller preset that has weights; None where there is none."""
    from nr_tracking.fields.weights import weights_path

    sizes = [preset for preset in PRESETS if preset != "test"]
    if config.preset not in sizes:
        return None
    # What a preset decides comes from the smaller one; what was chosen beside it stays.
    chosen = chosen_settings(config)
    for preset in reversed(sizes[: sizes.index(config.preset)]):
        settings = {"preset": preset, "device": config.device, **chosen}
        try:
            smaller = load_config(settings)
        except ConfigError:  # with surfaces along rays alone there is one cube
            smaller = load_config(settings, volume={"cubes": 1})
        try:
            weights_path(smaller)
        except InputError:
            continue
        return smaller
    return None


def release_memory() -> None:
    """Give what a failed computation left behind back to the GPU."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
