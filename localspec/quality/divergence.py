"""Perplexity, Kullback-Leibler divergence and agreement of predictions with a reference's.

    D(p || q) = sum over tokens of p log(p / q),  p the reference's distribution, q the other's

in nats a token, estimated without bias from what `reference` keeps of p.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from localspec.quality.reference import Floats, Ids, Rows


@dataclass(frozen=True, slots=True)
class Divergence:
    """What a text's scored tokens come to. `kld_error`: one standard error of the mean."""

    n_tokens: int
    perplexity: float
    reference_perplexity: float
    kld: float
    kld_error: float
    kld_p99: float
    same_top: float

    @classmethod
    def of(cls, scores: "list[Scores]", reference_nll: Floats) -> "Divergence":
        """From the scores of all blocks, in order."""
        kld, nll, same = (
            np.concatenate([getattr(score, name) for score in scores]) for name in Scores.__slots__
        )
        n = len(kld)
        return cls(
            n_tokens=n,
            perplexity=float(np.exp(nll.mean(dtype=np.float64))),
            reference_perplexity=float(np.exp(reference_nll[:n].mean(dtype=np.float64))),
            kld=float(kld.mean()),
            kld_error=float(kld.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0,
            kld_p99=float(np.quantile(kld, 0.99)),
            same_top=float(same.mean()),
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each token of a block: divergence, negative log likelihood, and whether the best is the
    reference's best."""

    kld: npt.NDArray[np.float64]
    nll: Floats
    same: npt.NDArray[np.bool_]


def log_softmax(rows: Floats) -> Floats:
    """Log probabilities of rows of logits, shape (n, n_vocab)."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def scores(reference: Rows, rows: Floats, targets: Ids) -> Scores:
    """Logits of some positions beside the reference's distributions at the same."""
    log_q = log_softmax(rows)
    log_p = reference.log_p.astype(np.float64)
    gap = log_p - np.take_along_axis(log_q, reference.ids, axis=1)
    n = reference.n_likeliest
    kld = (np.exp(log_p[:, :n]) * gap[:, :n]).sum(axis=1)
    if gap.shape[1] > n:
        kld += reference.rest * gap[:, n:].mean(axis=1)
    return Scores(
        kld=kld,
        nll=-log_q[np.arange(len(rows)), targets],
        same=rows.argmax(axis=1) == reference.top,
    )
