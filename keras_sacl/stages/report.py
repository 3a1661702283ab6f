"""The report of a run: gathers what is there, and writes report.html."""

import numpy as np
import tensorflow as tf

from keras_sacl.callbacks import RunCheckpoint, read_metrics
from keras_sacl.config import ConfigError
from keras_sacl.costs import measure
from keras_sacl.data import get_preset, plain_batches, raw_batches
from keras_sacl.evaluation import extract_features, extract_pairs, label_kind
from keras_sacl.evaluation.representation import correlation
from keras_sacl.methods import BarlowTwins
from keras_sacl.report.page import report_page
from keras_sacl.report.run_report import Looks, RunReport
from keras_sacl.report.views import view_rows
from keras_sacl.stages.build import build_method, compile_method
from keras_sacl.stages.costs import run_cost
from keras_sacl.stages.inputs import VIEWED, fixed_views, labelled_images, training_images
from keras_sacl.stages.run_dir import write_text

_IMAGES = 1000
_SHOWN_SIZE = 96  # pixels; larger images are shown at this size
_VIEW_ROWS, _VIEW_PAIRS = 4, 3
_DIMENSIONS = 64  # of embeddings, in the pictures of their correlations


def report(config, run_dir, say=print):
    """Writes report.html into the run directory.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` of a run that has begun.
        say: Called with lines for the user.

    Returns:
        The path of the file.
    """
    write_text(run_dir.report, report_page([collect(config, run_dir)]))
    say(f"report: {run_dir.report}")
    return run_dir.report


def collect(config, run_dir, name=None):
    """What a report shows of a run. What is missing is left out, and said in its notes.

    Args:
        config: The validated `RunConfig` of the run.
        run_dir: Its `RunDir`.
        name: What to call it; its directory's name by default.

    Returns:
        A `RunReport`.
    """
    found = RunReport(
        name=name or run_dir.path.resolve().name,
        flag_lines=config.flag_lines(),
        metrics=read_metrics(run_dir.metrics),
        results=run_dir.results(),
        costs=_costs(config, run_dir.results()),
    )
    if not run_dir.encoder.is_file():
        found.notes.append("The run has no encoder.keras yet: it has not ended.")
        return found
    try:
        found.looks = _look(config, run_dir)
    except (ConfigError, ValueError) as error:  # the data may lie elsewhere by now
        found.notes.append(f"No pictures, since the images cannot be had: {error}")
        return found
    try:
        found.looks.correlations = _correlations(config, run_dir, found)
    except (ConfigError, ValueError) as error:
        found.notes.append(f"No correlations of embeddings: {error}")
    return found


def _costs(config, results):
    """Rows (what, text)."""
    slim = measure(config.encoder, config.width, config.image_size)
    host = measure(config.encoder, config.host_width, config.image_size) if config.slims else None
    rows = [("deployed encoder", f"{slim.macs / 1e6:,.1f} M multiply-adds an image")]
    for width in config.widths[1:]:
        macs = measure(config.encoder, width, config.image_size).macs
        rows.append((f"of width {width}", f"{macs / 1e6:,.1f} M multiply-adds an image"))
    if host:
        rows.append(("host", f"{host.macs / 1e6:,.1f} M multiply-adds an image"))
    images = results.get("pretrain", {}).get("images")
    if images:
        cost = run_cost(config, images)
        step = "training step" + ", mean of the run" * bool(config.phase_ends)
        rows += [
            (step, f"{cost.per_step / 1e9:,.1f} GFLOPs"),
            *((f"of it: {part}", f"{100 * flops / cost.per_image:.0f} %")
              for part, flops in cost.parts.items() if flops),
            ("epoch", f"{cost.per_epoch / 1e12:,.2f} TFLOPs"),
        ]  # fmt: skip
        if cost.once:
            rows.append(("teacher, once in the run", f"{cost.once / 1e12:,.2f} TFLOPs"))
        rows.append(("run", f"{cost.per_run / 1e12:,.2f} TFLOPs"))
        if cost.left_out:
            rows.append(("not counted", cost.left_out))
    return rows


def _look(config, run_dir):
    test = labelled_images(config)[1].take(_IMAGES)
    sizes = {"image_size": config.image_size, "batch_size": 250}
    features, labels = extract_features(run_dir.load_encoder(), plain_batches(test, **sizes))
    pixels = np.concatenate([images for images, _ in raw_batches(test, **sizes)])
    if config.image_size > _SHOWN_SIZE:
        small = tf.image.resize(pixels, [_SHOWN_SIZE, _SHOWN_SIZE], "area")
        pixels = small.numpy().round().astype("uint8")
    views = view_rows(
        training_images(config).take(_VIEW_ROWS), get_preset(config.augmentation),
        image_size=config.image_size, pairs=_VIEW_PAIRS, seed=config.seed,
    )  # fmt: skip
    labels = labels if label_kind(labels) == "one" else None
    return Looks(pixels, features, labels, test.class_names, views)


def _correlations(config, run_dir, found):
    """Correlation matrices of embeddings: of what, then the title of each, as `Looks` has them."""
    views = fixed_views(config, training_images(config).take(VIEWED // 2))
    if config.slims:
        method = _restored(config, run_dir, found)
        alone = config.phases[-1] > 0  # which has moved the host's weights from under it
        if alone:
            method.encoder.trains = "slim"
        pairs = (_one_encoder if alone else _slimmed)(method, views)
    else:
        pairs = _one_encoder(_saved(run_dir), views)
    return {
        what: {
            title: correlation(a[:, :_DIMENSIONS], b[:, :_DIMENSIONS])
            for title, (a, b) in named.items()
        }
        for what, named in pairs.items()
    }


def _restored(config, run_dir, found):
    """The method of a run with a host, which the checkpoint alone has."""
    if config.distill:
        raise ValueError("of a host that is distilled too they are not drawn")
    pretrained = found.results.get("pretrain", {})
    steps = pretrained.get("steps", config.last_epoch) // config.last_epoch
    method = build_method(config, pretrained.get("images", config.batch_size))
    compile_method(method, config, max(steps, 1))
    checkpoint = RunCheckpoint(run_dir.checkpoints, write=False)
    if not checkpoint.restore(method, warn=found.notes.append):
        raise ValueError("the run has no checkpoint")
    return method


def _saved(run_dir):
    """The encoder and the projector of a run, as a method."""
    if not run_dir.projector.is_file():
        raise ValueError("the run has no projector.keras")
    return BarlowTwins(run_dir.load_encoder(), run_dir.load_encoder(run_dir.projector))


def _slimmed(method, views):
    def z(x, slim):
        return method.frozen_embed(x, slim=slim).numpy()

    found = [(z(a, False), z(b, True), z(a, True), z(b, False)) for a, b in views]
    z_a, z_b, other_a, other_b = (np.concatenate(part) for part in zip(*found, strict=True))
    contrasted = {"z_A (host), z_B (slim)": (z_a, z_b)}
    if getattr(method, "sacl_contrast", "across") == "own":  # which SACL without XD is not told
        contrasted = {"slim: z_A, z_B": (other_a, z_b), "host: z_A, z_B": (z_a, other_b)}
    return {
        "views": contrasted,
        "encoders": {"view A: host, slim": (z_a, other_a), "view B: slim, host": (z_b, other_b)},
    }


def _one_encoder(method, views):
    z_a, z_b = extract_pairs(method.frozen_embed, views)
    return {"views": {"z_A, z_B": (z_a, z_b), "z_A, z_A": (z_a, z_a)}}
