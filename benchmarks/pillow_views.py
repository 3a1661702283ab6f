"""The peer of our views: torchvision's transforms on Pillow images, one image at a time.

With torchvision's own classes where it can be imported. Where it cannot (it has no wheel for some
CPU builds of PyTorch), with what they come to: the same calls to Pillow, random numbers from
PyTorch, and the conversion and normalisation on PyTorch's tensors.
"""

import io
import math

import numpy as np
import torch
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
    """One view of a Pillow image, to a normalised float32 tensor (3, S, S).

    Args:
        preset: `ViewPreset`.
        image_size: S.
        mean, std: Of the normalisation.
    """

    def __init__(self, preset, image_size, mean, std):
        self.preset, self.size = preset, image_size
        self.mean, self.std = mean, std

    def __call__(self, image):
        p = self.preset
        image = self._crop(image)
        if _uniform(0, 1) < p.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if _uniform(0, 1) < p.jitter:
            image = self._jitter(image)
        if _uniform(0, 1) < p.grayscale:
            image = image.convert("L").convert("RGB")
        if _uniform(0, 1) < p.blur:
            image = image.filter(ImageFilter.GaussianBlur(_uniform(*p.blur_sigma)))
        if _uniform(0, 1) < p.solarize:
            image = ImageOps.solarize(image, round(255 * p.solarize_threshold))
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        x = x.to(torch.float32).div(255)
        mean = torch.as_tensor(self.mean).view(-1, 1, 1)
        std = torch.as_tensor(self.std).view(-1, 1, 1)
        return x.sub_(mean).div_(std)

    def _crop(self, image):
        p, (width, height) = self.preset, image.size
        for _ in range(10):
            area = width * height * _uniform(*p.crop_area)
            aspect = math.exp(_uniform(*map(math.log, p.crop_aspect)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                break
        else:
            w = h = min(width, height)
        left = torch.randint(0, width - w + 1, (1,)).item()
        top = torch.randint(0, height - h + 1, (1,)).item()
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
                factor = _uniform(max(0, 1 - strength), 1 + strength)
                image = enhance(image).enhance(factor)
        if p.hue:
            h, s, v = image.convert("HSV").split()
            turn = np.uint8(round(255 * _uniform(-p.hue, p.hue)) % 256)
            turned = np.array(h, dtype=np.uint8) + turn  # wraps around, as hues do
            image = Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")
        return image


def _uniform(low, high):
    return torch.empty(1).uniform_(low, high).item()


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
        return image.filter(ImageFilter.GaussianBlur(_uniform(*p.blur_sigma)))

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
