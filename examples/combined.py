"""Attentions combined, six ways: what each structure is good for, on a task where it is needed.

    python combined.py                       half a minute; the picture is combined.png
    python combined.py --quick               a few seconds, less training

For each structure two models learn one task from the same examples: with it, and without. The
models are in combined_models.py, each in thirty lines, the tasks in combined_tasks.py; the table
says how well both answer what they have not seen. The picture has the weights of each structure for
one example, where the word that has to be looked at is known.
"""

import argparse
import os
import pathlib
import sys
import time
from collections import namedtuple

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import combined_models as models
    import combined_tasks as tasks
    import matplotlib
    import numpy as np
    from command import check_numbers, errors_in_a_line

    import attnc
    from attnc.losses import softmax_cross_entropy
    from attnc.plot import heat_maps
except ImportError as error:
    sys.exit(f"combined.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen

# A structure, what takes its place in the other model, the task, the model, and what its panel of
# the picture shows: the first example's weights, names of its rows and columns, from its inputs.
Structure = namedtuple("Structure", ["name", "without", "task", "model", "rows", "columns"])
