"""How different responses are from one another: by their words, by their meaning, and by what was varied.

A grid of responses has the shape [prompts, users, draws]: every prompt for every user, sampled several times. Two of its
responses can differ because the model drew anew, because somebody else asked, or because something else was asked. One
number for the whole set mixes the three. `groups` takes them apart: small groups of equal size in which one thing varies.
"""

import numpy as np

from mipo_nb import evaluation

# What varies within a group: the axes of the grid, that one last, and first the one whose values are resampled for
# intervals (users; prompts where users vary).
WAYS = {"draws": (1, 0, 2), "users": (0, 2, 1), "prompts": (1, 2, 0)}


def groups(shape, way, size):
    """(indices [groups, size] into the flattened grid, labels [groups] for a clustered interval).

    `shape` is (prompts, users, draws); `way`, a key of WAYS, is what varies within a group. Every response is in one
    group. Raises `ValueError` where that axis is no multiple of `size`.
    """
    indices = np.arange(np.prod(shape)).reshape(shape).transpose(WAYS[way])
    if size < 2 or indices.shape[-1] % size:
        raise ValueError(f"{indices.shape[-1]} {way} cannot be divided into groups of {size}.")
    labels = np.repeat(np.arange(len(indices)), indices[0].size // size)
    return indices.reshape(-1, size), labels


def bleu_against_others(responses, references=None):
    """Array [n]: BLEU of each response against all others, 0 to 100; their mean is self-BLEU.

    sacrebleu's sentence BLEU with its own tokenizer and smoothing, up to 4-grams or as many as a response has. With
    `references` each response is compared with so many of the others, those after it in turn, for BLEU grows with
    the number of texts in which a phrase may be found. Empty responses count as 0. NaN for fewer than two.
    """
    from sacrebleu.metrics import BLEU

    responses = list(responses)
    n = len(responses)
    if n < 2:
        return np.full(n, np.nan)
    bleu = BLEU(effective_order=True)
    count = min(references or n - 1, n - 1)
    others = ([responses[(i + k) % n] for k in range(1, count + 1)] for i in range(n))
    return np.array([bleu.sentence_score(text, rest).score for text, rest in zip(responses, others, strict=True)])


def self_bleu(responses, references=None):
    """Mean of `bleu_against_others`: the higher, the more alike (Zhu et al. 2018, arXiv 1802.01886)."""
    return float(np.mean(bleu_against_others(responses, references)))


def spread(vectors):
    """Mean distance 1 - cos of all pairs of different rows of unit vectors [n, d]: 0 for one meaning, about 1 for unrelated ones.

    n^2 mean(1 - cos) runs over n (n - 1) pairs and n zeros, and the mean cosine is the squared length of the mean
    vector. NaN for fewer than two.
    """
    n = len(vectors)
    return float("nan") if n < 2 else float(n / (n - 1) * (1 - np.square(np.mean(vectors, axis=0)).sum()))


def by_group(texts, vectors, indices):
    """{measure: [groups]} of a flattened grid: self-BLEU (0 to 100), distinct 2-grams in percent, spread (0 to 1 and more)."""
    grouped = [[texts[i] for i in row] for row in indices]
    return {
        "self-BLEU": np.array([self_bleu(group) for group in grouped]),
        "distinct": np.array([100 * evaluation.distinct(group) for group in grouped]),
        "spread": np.array([spread(vectors[row]) for row in indices]),
    }
