"""How the cost of a step grows with the batch and with the image, beside PyTorch's.

python -m benchmarks.scaling --json scaling.json
"""

from benchmarks.race import Contender, race
from benchmarks.report import Report, parse
from benchmarks.step import OURS, ours, pytorch

BATCHES, SIZES = (64, 128, 256), (64, 96, 128)
_PEER = "PyTorch, masked, channels last"


def main():
    options = parse(__doc__, dim=2048)
    report = Report(f"SACL + XD step, MobileNet-V1 1.5x-1x, projector {options.dim}, float32")
    cases = [(batch, SIZES[0]) for batch in BATCHES] + [(BATCHES[0], size) for size in SIZES[1:]]
    rows = []
    for batch, size in cases:
        shape = {"host": 1.5, "slim": 1.0, "size": size, "batch": batch, "dim": options.dim}
        found = race(
            [
                Contender(OURS, ours, {**shape, "execution": "slice"}),
                Contender(_PEER, pytorch, {**shape, "channels_last": True}),
            ],
            repeats=options.repeats,
        )
        case = f"step, batch {batch}, {size} px"
        report.times(case, found, OURS)
        report.memory(case, found, OURS)
        rows.append((case, found[OURS], batch * size**2))
    print("per pixel of the batch, against the first row (1 is linear)")
    _, first, pixels = rows[0]
    for case, measured, work in rows:
        time = measured.median / work / (first.median / pixels)
        memory = (measured.peak_bytes or 0) / work / ((first.peak_bytes or 1) / pixels)
        print(f"  {case:34}time {time:5.2f}   memory {memory:5.2f}")
    report.write(options.json)


if __name__ == "__main__":
    main()
