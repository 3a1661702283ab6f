"""Evaluation on cached features: exact k-NN against its peers, many probes at once against singly.

python -m benchmarks.evaluate --json evaluate.json
"""

from benchmarks.race import Contender, race
from benchmarks.report import Report, parse

K = 20


def _features(bank, queries, dim):
    """Unit vectors around 100 centres, as trained features are, and their labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(100, dim))
    labels = rng.integers(0, 100, bank + queries)
    x = (centres[labels] + 2 * rng.normal(size=(len(labels), dim))).astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x[:bank], labels[:bank], x[bank:], labels[bank:]


def ours(**size):
    """The whole protocol: normalisation, search and vote."""
    from keras_sacl.evaluation import knn_accuracy

    data = _features(**size)

    def work():
        knn_accuracy(*data, k=K)

    return work


def scikit_learn(**size):
    """The same weighted vote by scikit-learn's brute-force search."""
    import numpy as np
    from sklearn.neighbors import KNeighborsClassifier

    bank, labels, queries, truth = _features(**size)
    # Of unit vectors, |a - b|^2 = 2 - 2 cos: the fast Euclidean path gives the same neighbours.
    classifier = KNeighborsClassifier(
        K, algorithm="brute", weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07)
    )
    classifier.fit(bank, labels)

    def work():
        classifier.score(queries, truth)

    return work


def faiss_flat(**size):
    """Search only, by faiss' exact inner product index: it does not vote."""
    import faiss

    bank, _, queries, _ = _features(**size)
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank)
    return lambda: index.search(queries, K)


def probes(together, bank, queries, dim):
    """All settings of the default grid for two epochs, at once or one after the other."""
    import dataclasses

    from keras_sacl.evaluation import SGDSettings
    from keras_sacl.evaluation.linear_sgd import fit_linear_grid

    x, labels, _, _ = _features(bank, queries, dim)
    grid = SGDSettings(epochs=2)
    single = [
        dataclasses.replace(grid, learning_rates=(rate,), weight_decays=(decay,))
        for rate, decay in grid.grid
    ]

    def work():
        for settings in [grid] if together else single:
            fit_linear_grid(x, labels, settings)

    return work


def main():
    options = parse(__doc__, bank=50_000, queries=10_000, dim=512)
    size = {"bank": options.bank, "queries": options.queries, "dim": options.dim}
    report = Report(f"{K}-NN with a weighted vote, exact")
    case = f"{options.queries} queries, {options.bank} x {options.dim} features"
    found = race(
        [
            Contender("ours", ours, size),
            Contender("scikit-learn, brute force", scikit_learn, size),
            Contender("faiss-cpu, IndexFlatIP, no vote", faiss_flat, size),
        ],
        repeats=options.repeats,
    )
    report.times(case, found, "ours")
    report.memory(case, found, "ours")
    found = race(
        [
            Contender("at once", probes, {"together": True, **size}),
            Contender("one by one", probes, {"together": False, **size}),
        ],
        repeats=options.repeats,
    )
    report.times(f"18 linear probes, {options.bank} x {options.dim}, 2 epochs", found, "at once")
    report.write(options.json)


if __name__ == "__main__":
    main()
