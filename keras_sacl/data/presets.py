"""The two views of each recipe, as numbers."""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class ViewPreset:
    """How one view is made of an image.

    The operations run in this order: crop and flip, brightness, contrast, saturation, hue,
    grayscale, blur, solarize. One whose probability or strength is 0 is left out.

    Attributes:
        crop_area: Least and largest area of the crop, as a share of the image's.
        crop_aspect: Least and largest width / height of the crop.
        flip: Probability of a horizontal flip.
        jitter: Probability that the four adjustments below take place (together, per image).
        brightness, contrast, saturation: Strength b: the factor is U(1 - b, 1 + b).
        hue: Strength h: the hue is rotated by U(-h, h) turns, at most half a turn.
        grayscale: Probability of removing the colours.
        blur: Probability of a Gaussian blur.
        blur_sigma: Least and largest standard deviation of the blur, in pixels of the view.
        solarize: Probability of inverting the pixels at or above `solarize_threshold`.
        solarize_threshold: In [0, 1].

    Raises:
        ValueError: On a number out of its range.
    """

    crop_area: tuple = (0.08, 1.0)
    crop_aspect: tuple = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5

    def __post_init__(self):
        for name in ("flip", "jitter", "grayscale", "blur", "solarize", "solarize_threshold"):
            self._check(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        for name in ("brightness", "contrast", "saturation"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        self._check("hue", 0 <= self.hue <= 0.5, "in [0, 0.5] turns")
        for name in ("crop_area", "crop_aspect", "blur_sigma"):
            low, high = getattr(self, name)
            self._check(name, 0 < low <= high, "a pair 0 < least <= largest")
        self._check("crop_area", self.crop_area[1] <= 1, "at most the whole image, 1")

    def _check(self, name, valid, expected):
        if not valid:
            raise ValueError(f"`{name}` must be {expected}. Received: {name}={getattr(self, name)}")

    @property
    def uses_colour(self):
        """Whether an operation has an effect on coloured images only."""
        jitters = self.jitter > 0 and (self.saturation > 0 or self.hue > 0)
        return jitters or self.grayscale > 0


_PLAIN = ViewPreset(saturation=0.0, hue=0.0, grayscale=0.0)

# "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model Training"
# (NeurIPS 2023), supplement, tables 1 to 3. What those tables call adjustment probabilities
# (0.4, 0.4, 0.2, 0.1) are the strengths of the jitter, whose probability is 0.8; where they are
# silent (areas, aspects, grayscale, blur sigma, threshold) the defaults above are the field's.
PRESETS = {
    "imagenet1k": (ViewPreset(blur=1.0), ViewPreset(blur=0.1, solarize=0.2)),
    "imagenet100": (ViewPreset(saturation=0.0, blur=1.0), ViewPreset(blur=0.1, solarize=0.2)),
    "cifar10": (ViewPreset(), ViewPreset(solarize=0.2)),
    # Ours, for images without colour. A mirrored digit is another sign, and most of a digit must
    # stay in the crop for two views to show the same one.
    "digits": (dataclasses.replace(_PLAIN, crop_area=(0.5, 1.0), flip=0.0),) * 2,
    "grayscale": (
        dataclasses.replace(_PLAIN, blur=1.0),
        dataclasses.replace(_PLAIN, blur=0.1, solarize=0.2),
    ),
}


# Base augmentation of "Improved Baselines with Momentum Contrastive Learning" (2020).
_MOCO = ViewPreset(crop_area=(0.2, 1.0), saturation=0.4, blur=0.5)
_AUG_PLUS = dataclasses.replace(
    _MOCO, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.4, grayscale=0.5
)
PRESETS |= {
    "moco_v2": (_MOCO,) * 2,
    # "On the Efficacy of Small Self-Supervised Contrastive Models without Distillation Signals"
    # (2022), table 5: its best one, and the two that it is compared with beside MoCo-v2's.
    "aug_plus": (_AUG_PLUS,) * 2,
    "aug_plus_blur": (dataclasses.replace(_AUG_PLUS, blur=1.0),) * 2,
    "moco_v2_hue": (dataclasses.replace(_MOCO, hue=0.2),) * 2,
    # Crop and flip alone, of supervised training, as CompRess (2020) distils.
    "compress": (ViewPreset(jitter=0.0, grayscale=0.0),) * 2,
    # SwAV (2020): strong jitter, as in SimCLR; the two views are large crops.
    "swav": (
        ViewPreset(
            crop_area=(0.14, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5
        ),
    )
    * 2,
}
_SMALL_CROPS = (0.05, 0.14)  # areas of SwAV's small views


def all_presets(preset_pair, small_views):
    """The presets of the two views and of small views, which differ from view A by their crops."""
    small = dataclasses.replace(preset_pair[0], crop_area=_SMALL_CROPS)
    return (*preset_pair, *(small,) * small_views)


def get_preset(name):
    """The presets of view A and view B.

    Args:
        name: A key of `PRESETS`.

    Returns:
        (ViewPreset, ViewPreset).

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"`augmentation` must be one of {', '.join(PRESETS)}. Received: augmentation={name}"
            + ("." + hint if hint else "")
        )
    return PRESETS[name]
