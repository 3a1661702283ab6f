"""Peak memory of running a file, in a process of its own that holds the file's runtime alone."""

import os
import subprocess
import sys
from pathlib import Path

# Height and width of a video frame: what a camera hands to an app.
PHOTO = (1080, 1920)


def peak_memory(path, side):
    """Bytes that loading a file and running it on one image add to the runtime's own.

    Args:
        path: A .tflite, .onnx or .keras file of one input of images.
        side: Side of the image in pixels, where the file leaves it open. One that takes photos gets
            one of `PHOTO`.

    Returns:
        An int; None where the system does not tell (no /proc).

    Raises:
        ValueError: If the file cannot be run; a crash of the runtime is one too, and ends that
            process only.
    """
    # -P: the directory of this module has an onnx.py, which is not the one the runtime wants.
    command = [sys.executable, "-P", __file__, str(path), str(side)]
    root = str(Path(__file__).parents[2])
    places = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace",
        env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    if done.returncode < 0:
        raise ValueError(f"cannot be run: its runtime died of signal {-done.returncode}")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise ValueError(f"cannot be run ({' '.join(lines[-1].split())[:200]})")
    answer = done.stdout.strip().splitlines()[-1]
    return None if answer == "None" else int(answer)


def _tflite(path, side):
    from ai_edge_litert.interpreter import Interpreter

    def run():
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        given = interpreter.get_input_details()[0]
        shape = _image(given["shape_signature"], side, given["dtype"] is np.uint8)
        interpreter.resize_tensor_input(given["index"], shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], np.zeros(shape, given["dtype"]))
        interpreter.invoke()

    return run


def _onnx(path, side):
    import onnxruntime

    def run():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        given = session.get_inputs()[0]
        kind = "uint8" if given.type == "tensor(uint8)" else "float32"
        session.run(None, {given.name: np.zeros(_image(given.shape, side, kind == "uint8"), kind)})

    return run


def _keras(path, side):
    import keras

    from keras_sacl.export import preprocessing  # noqa: F401  the crop of photos

    def run():
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        given = model.inputs[0]
        model.predict_on_batch(
            np.zeros(_image(given.shape, side, given.dtype == "uint8"), given.dtype)
        )

    return run


def _image(shape, side, pixels):
    """The shape of one image, with nothing open."""
    _, *rest = (n if isinstance(n, int) or hasattr(n, "item") else None for n in shape)
    rest = [int(n) if n is not None and n > 0 else None for n in rest]
    if pixels and rest[:2] == [None, None]:
        rest[:2] = PHOTO
    return [1, *(side if n is None else n for n in rest)]


def _status(name):
    """A figure of /proc/self/status in bytes, or None."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None


def _main(path, side):
    run = {".tflite": _tflite, ".onnx": _onnx, ".keras": _keras}[Path(path).suffix](path, side)
    try:
        # The high-water mark starts anew: importing a runtime may have reached further than
        # the file will.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass
    before = _status("VmRSS")
    run()
    peak = _status("VmHWM")
    print(None if before is None or peak is None else max(0, peak - before))


if __name__ == "__main__":
    import numpy as np

    _main(sys.argv[1], int(sys.argv[2]))
