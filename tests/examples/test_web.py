"""The web page finds in a photo, in a real browser, what Keras finds in it."""

import importlib
import json
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_sacl.export import read_metadata
from tests.examples.browser import browser, served
from tests.examples.test_clients import by_keras
from tests.tiny_classifier import NAMES, SIZE

EXAMPLES = Path(__file__).parents[2] / "examples"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
NPM = shutil.which("npm")
# A browser, npm and a minute.
pytestmark = pytest.mark.slow
CONTRACTS = ("images", "pixels", "photos")


@pytest.fixture(scope="module")
def sites(files, tmp_path_factory):
    """The folder of a page for each contract: images, pixels (channels first) and photos."""
    if NPM is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("sites")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES / "web"))
        build = importlib.import_module("build")
        for contract in CONTRACTS:
            try:
                build.build(files[contract, "classifier.onnx"], folder / contract)
            except OSError as error:
                pytest.skip(f"needs the npm registry: {error}")
    return folder


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and chromedriver")
    with browser(DRIVER, CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(sites):
    with served(sites) as url:
        yield url


def ready(window, address, **settings):
    window.open(address, **settings)
    window.wait("return !document.getElementById('file').disabled")


def classified(window, photo):
    """(names, probabilities) that the page shows for a photo."""
    window.upload("#file", photo)
    window.wait(
        "return !document.getElementById('results').hidden"
        f" && document.getElementById('preview').alt === {json.dumps(photo.name)}"
    )
    rows = window.script(
        "return [...document.querySelectorAll('#classes li')]"
        ".map((row) => [row.querySelector('span').textContent, +row.dataset.probability])"
    )
    return [name for name, _ in rows], [probability for _, probability in rows]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_page_is_keras(contract, classifier, photos, window, address):
    ready(window, f"{address}/{contract}/")
    for photo, expected in zip(photos, by_keras(classifier, photos), strict=True):
        names, probabilities = classified(window, photo)
        best = np.argsort(-expected)[:5]
        assert names == [NAMES[i] for i in best]
        assert np.abs(probabilities - expected[best]).max() <= 2e-3
    assert " in the model, " in window.script("return document.body.innerText")
    assert window.console() == []


PIXELS = """
const [address, name, size, share, done] = arguments;
(async () => {
  const { cropAndResize, pixelsOf } = await import(`${address}/photo.js`);
  const blob = await (await fetch(`${address}/${name}`)).blob();
  const photo = pixelsOf(await createImageBitmap(blob, { colorSpaceConversion: "none" }));
  done([photo.height, photo.width, ...cropAndResize(photo, size, share).data]);
})().catch((error) => done(String(error)));
"""


@pytest.mark.parametrize("size, share", [(SIZE, 0.875), (96, 1.0)])
def test_the_pixels_are_those_of_the_clients(size, share, photos, sites, window, address, examples):
    """Of large photos, which are read in parts, of those that are enlarged, and of turned ones."""
    import photo

    china = Image.open(photos[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    china.resize((2600, 1735)).save(sites / "images" / "large.png")
    china.crop((20, 30, 80, 77)).save(sites / "images" / "small.png")
    china.save(sites / "images" / "turned.jpg", exif=exif, quality=95)
    ready(window, f"{address}/images/")
    for name, difference in (("large.png", 1), ("small.png", 1), ("turned.jpg", 3)):
        expected = photo.load_photo(sites / "images" / name)
        arguments = [f"{address}/images", name, size, share]
        height, width, *found = window("execute/async", script=PIXELS, args=arguments)
        assert (height, width) == expected.shape[:2]
        expected = photo.crop_and_resize(expected, size, share).astype(int)
        apart = np.abs(np.reshape(found, expected.shape) - expected)
        # Decoders of JPEG differ in the last bits; else what lies on a half may be rounded up.
        assert apart.max() <= difference
        assert name.endswith(".jpg") or (apart > 0).mean() < 1e-3


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(width, scheme, photos, window, address):
    ready(window, f"{address}/images/", width=width, scheme=scheme)
    classified(window, photos[0])
    sides = window.script(
        "const page = document.documentElement;"
        "const all = [...document.querySelectorAll('body *')];"
        "const right = all.map((element) => element.getBoundingClientRect().right);"
        "return [innerWidth, page.scrollWidth, Math.max(...right),"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert sides[0] == width and sides[1] <= width and sides[2] <= width
    assert sides[3] == {"light": "rgb(246, 247, 249)", "dark": "rgb(20, 22, 26)"}[scheme]


def test_what_goes_wrong_is_in_the_page(photos, sites, window, address, tmp_path):
    ready(window, f"{address}/images/")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no photo")
    window.upload("#file", broken)
    error = "const e = document.getElementById('error'); return !e.hidden && e.textContent"
    assert window.wait(error) == "broken.png: is no image that this browser can read"
    names, _ = classified(window, photos[0])  # and the next photo is as good as any
    assert len(names) == 5 and not window.script(error)
    without = sites / "without"
    shutil.copytree(sites / "images", without, dirs_exist_ok=True)
    (without / "classifier.onnx").unlink()
    window.open(f"{address}/without/")
    assert window.wait(error) == "classifier.onnx: the server answers 404"
    window.console()


DROP = """
const [address, done] = arguments;
fetch(address).then((answer) => answer.blob()).then((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], "dropped.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
  done(true);
});
"""
# The model comes when `release` is called.
LATE = """
const now = fetch;
const released = new Promise((release) => Object.assign(window, { release }));
window.fetch = (name) => (name === "model.json" ? released.then(() => now(name)) : now(name));
"""
SHOWN = "return !document.getElementById('results').hidden"


def test_a_photo_can_be_dropped(photos, sites, window, address):
    shutil.copy(photos[0], sites / "images" / "dropped.png")
    ready(window, f"{address}/images/")
    window("execute/async", script=DROP, args=[f"{address}/images/dropped.png"])
    window.wait(SHOWN)


def test_a_photo_dropped_before_the_model_is_there_waits_for_it(photos, sites, window, address):
    shutil.copy(photos[0], sites / "images" / "dropped.png")
    late = window.devtools("Page.addScriptToEvaluateOnNewDocument", source=LATE)
    try:
        window.open(f"{address}/images/")
        window("execute/async", script=DROP, args=[f"{address}/images/dropped.png"])
        window.wait("return !document.getElementById('preview').hidden")
        assert not window.script(SHOWN)
        assert "Loading the model" in window.script("return document.body.innerText")
        window.script("release()")
        window.wait(SHOWN)
    finally:
        window.devtools("Page.removeScriptToEvaluateOnNewDocument", **late)
    assert len(window.script("return [...document.querySelectorAll('#classes li')]")) == 5


def test_the_same_file_can_be_chosen_again(photos, window, address):
    ready(window, f"{address}/images/")
    first = classified(window, photos[0])
    window.script("document.getElementById('results').hidden = true")
    assert classified(window, photos[0]) == first


def test_the_folder_is_complete(files, sites, window, address):
    """Nothing is loaded from elsewhere, and what the page knows of the model is in the model."""
    about = json.loads((sites / "images" / "model.json").read_text("utf-8"))
    card, labels = read_metadata(files["images", "classifier.onnx"])
    assert about == {"card": card, "labels": labels} and labels == NAMES
    ready(window, f"{address}/images/")
    loaded = window.script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert any(name.endswith(".wasm") for name in loaded)
    assert all(name.startswith((address, "data:", "blob:")) for name in loaded)
    with urllib.request.urlopen(f"{address}/images/") as answer:
        assert "Cross-Origin-Opener-Policy" not in answer.headers


def test_bad_input_is_one_line(files, examples, tmp_path, capsys, monkeypatch):
    import build

    (tmp_path / "broken.onnx").write_bytes(b"no model")
    arguments = [f"--model={tmp_path}/broken.onnx", f"--output={tmp_path}/site"]
    assert build.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"build: --model={tmp_path}/broken.onnx: ")
    assert len(error.splitlines()) == 1
    monkeypatch.setenv("PATH", str(tmp_path))  # without npm
    arguments[0] = f"--model={files['images', 'classifier.onnx']}"
    assert build.main(arguments) == 2
    assert capsys.readouterr().err == "build: npm is not installed\n"


def test_another_archive_is_refused(sites, files, examples, tmp_path, monkeypatch):
    import build

    monkeypatch.setattr(build, "SHA512", "A" * 86 + "==")
    with pytest.raises(ValueError, match="is not the archive that was expected"):
        build.build(files["images", "classifier.onnx"], tmp_path / "site")
    assert not list((tmp_path / "site").glob("*.wasm"))
