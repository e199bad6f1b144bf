"""Intervals, tests and verdicts for comparisons of arms: arrays in, verdicts out.

The modules `intervals`, `contrasts` and `questions` are a library that imports no other part of Imprint:

    import numpy as np
    from imprint.statistics.contrasts import Scores
    from imprint.statistics.questions import Question, answers

    scores = Scores(
        clusters=np.arange(200),
        values={"tuned": tuned, "base": base},  # shape (200 items, 3 seeds) and (200, 1)
        seeds={"tuned": (0, 1, 2), "base": (0,)},
        fitted=frozenset({"tuned"}),
    )
    answers([Question("q1", "tuned", "base", "gsm8k")], {"gsm8k": scores})

The other modules make the tables of an experiment from it. docs/statistics.md says what is assumed, and how often the
intervals hold the truth.
"""
