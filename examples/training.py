"""The loop of training that examples share: steps, rates of learning, checks, time; and seeds.

Defines: `Course`, `Check`, `learn`, `with_seeds`.
"""

import concurrent.futures
import time
from typing import Any, NamedTuple

import attnc


class Course(NamedTuple):
    """How a model is trained; the settings of AdamW are those of `attnc.optim`."""

    steps: int
    batch: int = 64
    rate: float = 0.002  # of learning, at its highest
    warmup: float = 0.05  # the share of the steps in which it rises; then it falls as a cosine
    clip: float = 1.0  # the largest norm of all gradients together
    decay: float = 0.0


class Check(NamedTuple):
    """What was found between two steps."""

    step: int
    seconds: float  # of the processor, of training so far, without the checks
    loss: float  # a batch, the mean since the check before
    found: Any  # what `check` returned


def learn(model, loss, course, check=None, checks=10, name=""):
    """Train a layer, or several; return a list of `Check`.

    Parameters
    ----------
    model : Layer or list of Layer
    loss : callable
        ``loss(step)`` computes the mean loss of a new batch at a step, from 1 on, calls the
        pullbacks, which add to the gradients, and returns the loss.
    course : Course
        `batch` is for the caller.
    check : callable, optional
        ``check()`` says how good the model is, on examples that it does not learn from.
    checks : int
        How many, evenly spaced; the last is after the last step.
    name : str
        What a bar of progress is called, where there is a terminal.
    """
    from tqdm import tqdm

    optimizer = attnc.optim.AdamW(model, weight_decay=course.decay)
    done, losses, seconds = [], [], 0.0
    checks = min(checks, course.steps)
    for step in tqdm(range(1, course.steps + 1), name, leave=False, disable=None):
        start = time.process_time()
        optimizer.zero_grad()
        losses.append(float(loss(step)))
        attnc.optim.clip_gradients(model, course.clip)
        optimizer.learning_rate = attnc.schedules.cosine(
            step, course.rate, course.steps, warmup_steps=round(course.warmup * course.steps)
        )
        optimizer.step()
        seconds += time.process_time() - start
        if step * checks // course.steps > (step - 1) * checks // course.steps:
            mean = sum(losses) / len(losses)
            done.append(Check(step, seconds, mean, check() if check else None))
            losses.clear()
    return done


def with_seeds(run, seeds, *arguments):
    """Call ``run(seed, *arguments)`` for each seed, each in a process and with one thread.

    Returns a list of what it returned, in the order of the seeds.
    """
    if len(seeds) == 1:
        return [run(seeds[0], *arguments)]
    with concurrent.futures.ProcessPoolExecutor(
        min(len(seeds), attnc.get_num_threads()), initializer=attnc.set_num_threads, initargs=(1,)
    ) as pool:
        return list(pool.map(run, seeds, *([each] * len(seeds) for each in arguments)))
