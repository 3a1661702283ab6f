"""Both augmented views of each image, per second: ours against transforms in a DataLoader.

python -m benchmarks.views --data_dir PATH --json views.json
"""

import itertools
import time

from benchmarks.race import Contender, race
from benchmarks.report import Report, parse

WORKERS = 2
# Batches taken before the clock starts: workers start, XLA compiles, buffers fill and empty.
_WARM = 32

CASES = {
    "32 px, CIFAR preset": {"size": 32, "preset": "cifar10", "batch": 256, "batches": 50},
    "224 px JPEG, ImageNet preset": {
        "size": 224, "preset": "imagenet1k", "batch": 32, "batches": 40,
    },
}  # fmt: skip


def ours(size, preset, batch, batches, data_dir):
    """`two_view_dataset`, as training uses it."""
    from keras_sacl.data import get_preset, two_view_dataset

    data = two_view_dataset(
        _source(size, data_dir), get_preset(preset),
        image_size=size, batch_size=batch, seed=0, epochs=100_000,
    )  # fmt: skip
    return _steady(data, batches)


def data_loader(size, preset, batch, batches, data_dir):
    """torchvision's transforms, or the same calls to Pillow, in a DataLoader of two workers."""
    import torch

    from benchmarks.pillow_views import PillowView, TwoViews, torchvision_view
    from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD, get_preset

    settings = (size, IMAGENET_MEAN, IMAGENET_STD)
    try:
        views = [torchvision_view(p, *settings) for p in get_preset(preset)]
    except ImportError:
        views = [PillowView(p, *settings) for p in get_preset(preset)]
    print(f"DataLoader with {type(views[0]).__module__}")
    loader = torch.utils.data.DataLoader(
        TwoViews(_source(size, data_dir), views),
        batch_size=batch, shuffle=True, drop_last=True, num_workers=WORKERS,
        persistent_workers=True,
    )  # fmt: skip
    return _steady(loader, batches)


def _source(size, data_dir):
    from benchmarks.images import photos, small_images

    return small_images(data_dir) if size == 32 else photos(data_dir)


def _steady(iterable, batches):
    def work():
        # A new iterator each time: one that waits for its turn would fill its buffers meanwhile.
        iterator = itertools.chain.from_iterable(itertools.repeat(iterable))
        for _ in range(_WARM):
            next(iterator)
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        return time.perf_counter() - start

    return work


def main():
    options = parse(__doc__, data_dir=None)
    report = Report("Two augmented views of each image, from memory, float32")
    for case, settings in CASES.items():
        arguments = {**settings, "data_dir": options.data_dir}
        peer = f"DataLoader, {WORKERS} workers"
        found = race(
            [Contender("ours", ours, arguments), Contender(peer, data_loader, arguments)],
            repeats=options.repeats,
            warmup=1,
        )
        images = settings["batch"] * settings["batches"]
        report.times(case, found, "ours", units=images, unit="images/s")
    report.write(options.json)


if __name__ == "__main__":
    main()
