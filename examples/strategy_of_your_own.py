"""A strategy of one's own: images that hold about as many particles as labeling is comfortable with.

Put ``plugins = ["strategy_of_your_own.py"]`` into a config beside this file, and ``comfortable`` or
``doubtful_crowds`` into its ``strategies``.
"""

from cryoquery.acquisition import Candidates, Choice, image_score, register

n_particles = image_score("n_particles")


def comfortable(candidates: Candidates, n: int) -> list[Choice]:
    """The ``n`` candidates whose expected number of particles is nearest to 100."""
    counts = n_particles(candidates)
    rows = abs(counts - 100).argsort(kind="stable")[:n]
    return [Choice(int(candidates.indices[i]), float(counts[i]), "about 100 particles") for i in rows]


register("comfortable", comfortable, "about 100 expected particles", needs=["n_particles"])
register("doubtful_crowds", "power(per_minute(foreground(entropy)), beta=4)", "doubt per minute of labeling")
