"""Writes a web page that runs an exported .onnx classifier in the browser.

pip install onnxruntime
python examples/web/build.py --model runs/mine/export/classifier.onnx --output site/
python -m http.server -d site

Needs npm, for ONNX Runtime Web (MIT). The folder is complete: it loads nothing from elsewhere, and
any server will do that sends .wasm as application/wasm.
"""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import onnxruntime

RUNTIME = "onnxruntime-web@1.27.0"
# As the registry gives it: `npm view onnxruntime-web@1.27.0 dist.integrity`.
SHA512 = "ogDLsqIozHZwifPuN37OproAo0byX6t43/bP8GzeZWBWD6MOGExswFAx3up4NS/vvWBOg2u2PXomDt3rMmdQSg=="
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = ("index.html", "style.css", "app.js", "photo.js")


def describe(model):
    """What the page must know: {"card", "labels"}. The browser's runtime reads no metadata."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    texts = session.get_modelmeta().custom_metadata_map
    if "model_card.json" not in texts:
        raise ValueError("holds no model card")
    card = json.loads(texts["model_card.json"])
    if card["output"]["name"] != "logits":
        raise ValueError(f"gives {card['output']['name']}: it is no classifier")
    labels = texts.get("labels.txt")
    return {"card": card, "labels": labels and labels.splitlines()}


def fetch_runtime(directory):
    """Puts the files of ONNX Runtime Web into a directory, from the npm registry or npm's cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", RUNTIME, f"--pack-destination={folder}", "--loglevel=error"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except FileNotFoundError as error:
            raise OSError("npm is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise OSError(f"npm pack {RUNTIME}: took longer than {error.timeout:g} s") from error
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip() or f"exit code {error.returncode}"
            raise OSError(f"npm pack {RUNTIME}: {reason[:300]}") from error
        (archive,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise ValueError(f"npm pack {RUNTIME}: is not the archive that was expected")
        with tarfile.open(archive) as package:
            for name in RUNTIME_FILES:
                content = package.extractfile(f"package/dist/{name}").read()
                (directory / name).write_bytes(content)


def build(model, output):
    """Writes the page for a model.

    Args:
        model: Path of an exported classifier, .onnx.
        output: Directory; it is made when needed. Files of an earlier page are replaced.

    Raises:
        ValueError: If the model is no such file.
        OSError: If npm is missing, or cannot reach the registry.
    """
    try:
        about = describe(str(model))
    except Exception as error:  # the runtime has its own kinds for a broken file
        raise ValueError(f"--model={model}: {error}") from error
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    fetch_runtime(output)
    for name in PAGE_FILES:
        shutil.copy(Path(__file__).parent / name, output / name)
    shutil.copyfile(model, output / "classifier.onnx")
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    (output / "model.json").write_text(text, encoding="utf-8")


def main(argv=None):
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="the exported classifier.onnx")
    parser.add_argument("--output", required=True, help="folder to write")
    given = parser.parse_args(argv)
    try:
        build(given.model, given.output)
    except (ValueError, OSError) as error:
        print(f"build: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"wrote {given.output}; to look at it: python -m http.server -d {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
