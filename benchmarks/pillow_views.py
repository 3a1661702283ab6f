"""The peer of our views: torchvision's transforms on Pillow images, one image at a time.

With torchvision's own classes where it can be imported, else with the same calls to Pillow that
they make (torchvision has no wheel for some CPU builds of PyTorch).
"""

import io
import math
import random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps


class TwoViews:
    """A map-style data set of two views, for PyTorch's DataLoader.

    Args:
        source: `ImageSource`.
        views: Two functions of a Pillow image.
    """

    def __init__(self, source, views):
        self.source, self.views = source, views

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        image = self.source.images[index]
        if self.source.decoded:
            image = Image.fromarray(image)
        else:
            image = Image.open(io.BytesIO(image)).convert("RGB")
        return tuple(view(image) for view in self.views)


class PillowView:
    """One view of a Pillow image, to a normalised float32 array (3, S, S).

    Args:
        preset: `ViewPreset`.
        image_size: S.
        mean, std: Of the normalisation.
    """

    def __init__(self, preset, image_size, mean, std):
        self.preset, self.size = preset, image_size
        self.mean = np.asarray(mean, "float32")[:, None, None]
        self.std = np.asarray(std, "float32")[:, None, None]

    def __call__(self, image):
        p, draw = self.preset, random.random
        image = self._crop(image)
        if draw() < p.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if draw() < p.jitter:
            image = self._jitter(image)
        if draw() < p.grayscale:
            image = image.convert("L").convert("RGB")
        if draw() < p.blur:
            image = image.filter(ImageFilter.GaussianBlur(random.uniform(*p.blur_sigma)))
        if draw() < p.solarize:
            image = ImageOps.solarize(image, round(255 * p.solarize_threshold))
        x = np.asarray(image, "float32").transpose(2, 0, 1) / 255
        return (x - self.mean) / self.std

    def _crop(self, image):
        p, (width, height) = self.preset, image.size
        for _ in range(10):
            area = width * height * random.uniform(*p.crop_area)
            aspect = math.exp(random.uniform(*map(math.log, p.crop_aspect)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                break
        else:
            w = h = min(width, height)
        left, top = random.randint(0, width - w), random.randint(0, height - h)
        box = (left, top, left + w, top + h)
        return image.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR)

    def _jitter(self, image):
        p = self.preset
        for strength, enhance in (
            (p.brightness, ImageEnhance.Brightness),
            (p.contrast, ImageEnhance.Contrast),
            (p.saturation, ImageEnhance.Color),
        ):
            if strength:
                factor = random.uniform(max(0, 1 - strength), 1 + strength)
                image = enhance(image).enhance(factor)
        if p.hue:
            h, s, v = image.convert("HSV").split()
            turn = np.uint8(round(255 * random.uniform(-p.hue, p.hue)) % 256)
            turned = np.asarray(h, "uint8") + turn  # wraps around, as hues do
            image = Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")
        return image


def torchvision_view(preset, image_size, mean, std):
    """The same view by torchvision's classes.

    Raises:
        ImportError: If torchvision cannot be imported.
    """
    try:
        from torchvision import transforms as t
    except Exception as error:  # a wheel for another build of PyTorch fails in its own ways
        raise ImportError(f"torchvision: {error}") from error
    p = preset

    def blur(image):
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*p.blur_sigma)))

    return t.Compose(
        [
            t.RandomResizedCrop(image_size, p.crop_area, p.crop_aspect),
            t.RandomHorizontalFlip(p.flip),
            t.RandomApply([t.ColorJitter(p.brightness, p.contrast, p.saturation, p.hue)], p.jitter),
            t.RandomGrayscale(p.grayscale),
            t.RandomApply([blur], p.blur),
            t.RandomSolarize(round(255 * p.solarize_threshold), p.solarize),
            t.ToTensor(),
            t.Normalize(mean, std),
        ]
    )
