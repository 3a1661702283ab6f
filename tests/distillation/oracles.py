"""The losses of the papers in float64 NumPy, written sum by sum."""

import numpy as np
import scipy.special


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def disco_oracle(s, t):
    return np.mean([np.sum((a - b) ** 2) for a, b in zip(unit(s), unit(t), strict=True)])


def seed_oracle(s, t, queue, student_temperature, teacher_temperature):
    found = []
    for a, b in zip(unit(s), unit(t), strict=True):
        anchors = np.vstack([queue, b])
        p = scipy.special.softmax(anchors @ b / teacher_temperature)
        found.append(-p @ scipy.special.log_softmax(anchors @ a / student_temperature))
    return np.mean(found)


def compress_oracle(s, t, student_anchors, teacher_anchors, temperature):
    p = scipy.special.softmax(unit(t) @ teacher_anchors.T / temperature, axis=1)
    q = scipy.special.softmax(unit(s) @ student_anchors.T / temperature, axis=1)
    return scipy.special.rel_entr(p, q).sum(axis=1).mean()


def huber(x):
    return 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5


def rkd_oracle(s, t):
    """Equations 3 to 8, pair by pair and triplet by triplet."""

    def distances(z):
        d = np.array([[np.linalg.norm(a - b) for b in z] for a in z])
        return d / d[~np.eye(len(z), dtype=bool)].mean()

    def cosine(z, i, j, k):
        a, b = z[i] - z[j], z[k] - z[j]
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / norms if norms else 0.0

    n = range(len(s))
    pairs = [huber(a - b) for a, b in zip(distances(s).flat, distances(t).flat, strict=True)]
    triplets = [huber(cosine(s, i, j, k) - cosine(t, i, j, k)) for i in n for j in n for k in n]
    return np.mean(pairs), np.mean(triplets)


def regression_oracle(s, t, whiten):
    if whiten:
        s, t = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (s, t))
    return np.mean((s - t) ** 2)


def crd_oracle(s, t, queue, temperature, normaliser):
    """Equation 18, with h = e / (e + K m)."""
    k, found = len(queue), []
    for a, b in zip(unit(s), unit(t), strict=True):
        own = np.exp(a @ b / temperature)
        others = np.exp(queue @ a / temperature)
        h = own / (own + k * normaliser)
        found.append(-np.log(h) - np.log(1 - others / (others + k * normaliser)).sum())
    return np.mean(found)
