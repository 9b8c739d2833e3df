"""Beam search as the text of settled 23 says it, word by word, in float64. `step(ids)` gives log-probabilities [V]."""

from typing import Callable

import numpy as np


def beam_search(
    step: Callable[[tuple[int, ...]], np.ndarray], prompt: list[int], beams: int, limit: int, eos: int
) -> dict:
    """The best hypothesis: generated ids (EOS included), score, and what the search did on the way."""
    running = [((), 0.0)] + [((), -1e9)] * (beams - 1)
    finished: list[tuple[float, tuple[int, ...]]] = []
    closest, stopped = np.inf, False
    length = 0
    while not stopped and length < limit:
        length += 1
        scores = np.stack([score + step((*prompt, *ids)) for ids, score in running])
        vocabulary = scores.shape[1]
        # 2·beams candidates a step; ties to the lower token id (then to the better beam)
        order = sorted(range(scores.size), key=lambda c: (-scores.flat[c], c % vocabulary, c // vocabulary))
        values = [float(scores.flat[c]) for c in order[: 2 * beams + 1]]
        closest = min(closest, *(a - b for a, b in zip(values, values[1:]) if a > -1e8))
        following = []
        for rank, c in enumerate(order[: 2 * beams]):
            ids = (*running[c // vocabulary][0], c % vocabulary)
            if c % vocabulary != eos:
                following.append((ids, float(scores.flat[c])))
            elif rank < beams:  # an EOS candidate finishes only among the top `beams`
                finished.append((float(scores.flat[c]) / length, ids))  # length counts EOS
        running = following[:beams]
        finished = sorted(finished, key=lambda h: -h[0])[:beams]
        stopped = len(finished) == beams and finished[-1][0] >= running[0][1] / length
    if not stopped:  # at the token limit the running beams are added
        finished += [(score / length, ids) for ids, score in running]
    finished.sort(key=lambda h: -h[0])
    return {
        "ids": list(finished[0][1]),
        "score": finished[0][0],
        "steps": length,
        "stoppedEarly": stopped,
        "closest": min(closest, finished[0][0] - finished[1][0]),
    }
