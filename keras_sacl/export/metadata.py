"""What a file says of itself: a model card and the names of its classes, inside the file.

TFLite: as associated files in a zip archive behind the model, where the format's own metadata
keeps its labels; `unzip encoder.tflite` shows them, and Android's `MetadataExtractor` reads them.
The binary table that the format can have besides is left out: it would take one more package,
tflite-support. An interpreter reads the model and stops before the archive. ONNX: as
`metadata_props`. SavedModel: in its folder assets.extra. A .keras file stays as Keras writes it.
"""

import io
import json
import zipfile
from pathlib import Path

CARD, LABELS = "model_card.json", "labels.txt"
# So that the same export is the same bytes; zip knows no earlier date.
_DATE = (1980, 1, 1, 0, 0, 0)


def add_metadata(path, card, labels=None):
    """Puts a model card into a file, in place.

    Args:
        path: A .tflite or .onnx file without metadata, or the directory of a SavedModel.
        card: What JSON can hold.
        labels: Names of the classes in the order of the logits, or None.

    Raises:
        ValueError: If the file is of another kind, or a name holds a line break.
    """
    path = Path(path)
    texts = {CARD: json.dumps(card, indent=2, ensure_ascii=False) + "\n"}
    if labels is not None:
        broken = [name for name in labels if "\n" in name]
        if broken:
            raise ValueError(f"`labels` must be of one line each. Received: {broken[0]!r}")
        texts[LABELS] = "".join(f"{name}\n" for name in labels)
    if path.is_dir():
        (path / "assets.extra").mkdir(exist_ok=True)
        for name, text in texts.items():
            (path / "assets.extra" / name).write_text(text, encoding="utf-8")
    elif path.suffix == ".tflite":
        # Mode "a" behind what is no archive: places in the archive count from the file's start.
        with zipfile.ZipFile(path, "a") as archive:
            for name, text in texts.items():
                archive.writestr(zipfile.ZipInfo(name, _DATE), text)
    elif path.suffix == ".onnx":
        import onnx

        proto = onnx.load(path)
        onnx.helper.set_model_props(proto, texts)
        path.write_bytes(proto.SerializeToString())
    else:
        raise ValueError(
            f"`path` must be a .tflite or .onnx file or a SavedModel. Received: path={path}"
        )


def read_metadata(path):
    """(card, labels) of a file; None for what it does not hold.

    Args:
        path: A file of any format, or the directory of a SavedModel.

    Raises:
        ValueError: If the card is no JSON.
    """
    texts = _texts(Path(path))
    card, labels = texts.get(CARD), texts.get(LABELS)
    try:
        return card and json.loads(card), None if labels is None else labels.splitlines()
    except ValueError as error:
        raise ValueError(f"has a {CARD} that is no JSON ({error})") from error


def _texts(path):
    if path.is_dir():
        files = [path / "assets.extra" / name for name in (CARD, LABELS)]
        return {file.name: file.read_text("utf-8") for file in files if file.is_file()}
    if path.suffix == ".tflite":
        content = io.BytesIO(path.read_bytes())
        if not zipfile.is_zipfile(content):
            return {}
        try:
            with zipfile.ZipFile(content) as archive:
                names = {CARD, LABELS} & set(archive.namelist())
                return {name: archive.read(name).decode() for name in names}
        except zipfile.BadZipFile:
            return {}  # bytes of the weights that look like an archive
    if path.suffix == ".onnx":
        import onnx

        return {p.key: p.value for p in onnx.load(path).metadata_props}
    return {}
