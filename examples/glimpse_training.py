"""The models that glimpse.py compares: making, training and trying one of each kind."""

import time
from typing import Any, NamedTuple

import numpy as np
from canvases import CLASSES, SIDE, Canvases, split
from convolution import ConvolutionalNetwork
from glimpse_learning import last_looks, learn, learn_hard
from glimpse_model import HardLooker, SoftLooker
from sensor import GaussianRead, Retina, regions

import attnc


class Course(NamedTuple):
    """How a kind of model learns best, of what was tried."""

    batch: int  # canvases of a step
    rate: float  # of learning, at its highest
    cost: float  # of a step, in those of learned looks: all kinds learn for about the same time


COURSES = {
    "learned": Course(256, 0.005, 1.0),
    "random": Course(256, 0.005, 0.85),
    "scan": Course(128, 0.005, 2.0),
    "soft": Course(128, 0.002, 0.75),
    "convolution": Course(64, 0.002, 2.6),
}
DECAY = 0.05  # of the weights: 1,197 digits are soon known by heart
WIDE, NARROW = 0.25, 0.05  # deviation of places around the means, at first and in the end


class Trained(NamedTuple):
    kind: str
    model: Any
    checks: list  # (steps, seconds so far, error in validation)
    seconds: float  # of the processor


def make(kind, settings, rng):
    """Make a model; all have about as many parameters."""
    made = {"digits": settings.digits, "look_back": settings.look_back, "rng": rng}
    looks = settings.looks * settings.digits
    retina = Retina(settings.width, settings.scales)
    hard = HardLooker(retina, looks, settings.units, **made)
    if kind == "soft":
        read = GaussianRead(int(retina.values**0.5))
        return SoftLooker(read, looks, settings.units, **made)
    if kind == "convolution":
        asked = settings.digits, CLASSES
        return ConvolutionalNetwork(settings.size, *asked, hard.parameter_count, rng)
    if kind == "scan":
        grid = regions(settings.size, SIDE)
        return HardLooker(retina, len(grid) * settings.digits, settings.units, **made)
    return hard


def chooser(kind, settings, rng, count, deviation):
    """Return what chooses the places (count, 2) of each look, as `HardLooker` calls it."""
    if kind == "random":  # wherever the middle of a digit may be
        reach = 1 - SIDE / settings.size
        return lambda number, means: rng.uniform(-reach, reach, (count, 2))
    if kind == "scan":
        grid = regions(settings.size, SIDE)
        return lambda number, means: np.tile(grid[number % len(grid)], (count, 1))

    def choose(number, means):
        if number == 0:  # the first look is at the middle
            return np.zeros((count, 2))
        return means + deviation * rng.standard_normal(means.shape, dtype=np.float32)

    return choose


def train(kind, settings, seed):
    """Train a model of one kind."""
    rng, course = np.random.default_rng([seed, list(COURSES).index(kind)]), COURSES[kind]
    parts = split()
    training, validation = (canvases(settings, parts[part]) for part in ("training", "validation"))
    model, steps = make(kind, settings, rng), max(2, round(settings.steps / course.cost))
    optimizer = attnc.optim.AdamW(model, weight_decay=DECAY)
    checks, start, checking = [], time.process_time(), 0.0
    for step in range(1, steps + 1):
        images, labels, _ = training.draw(rng, course.batch)
        optimizer.zero_grad()
        if kind == "convolution":
            learn(model, images, labels)
        else:
            targets = labels[:, np.arange(model.looks) * settings.digits // model.looks]
            if kind == "soft":
                learn(model, images, targets)
            else:
                share = min(1, step / (0.7 * steps))
                deviation = WIDE * (NARROW / WIDE) ** share  # falls, then stays
                choose = chooser(kind, settings, rng, len(images), deviation)
                chosen = deviation if kind == "learned" else None
                learn_hard(model, images, targets, choose, chosen, settings, rng)
        optimizer.learning_rate = attnc.schedules.cosine(
            step, course.rate, steps, warmup_steps=steps // 20
        )
        optimizer.step()
        if step * 8 // steps > (step - 1) * 8 // steps:
            before = time.process_time()
            found = test(kind, model, settings, validation, settings.checked, seed)
            checks.append((step, before - start - checking, found.error))
            checking += time.process_time() - before
    return Trained(kind, model, checks, time.process_time() - start - checking)


def canvases(settings, part):
    images, labels = part
    return Canvases(images, labels, settings.size, settings.digits, settings.pieces)


class Found(NamedTuple):
    """What a model makes of canvases."""

    error: float  # share of digits that are taken for another
    looks: Any  # of a `Looker`
    last: Any  # number of the last look, at each canvas
    images: Any
    labels: Any


def test(kind, model, settings, canvases, count, seed):
    """Try a model on new canvases: one sample of its looks at each."""
    rng = np.random.default_rng([seed, 99])
    images, labels, _ = canvases.draw(rng, count)
    if kind == "convolution":
        parts = np.array_split(images, -(-count // 250))  # all at once would take gigabytes
        answers = np.concatenate([model(part).argmax(axis=-1) for part in parts])
        return Found(np.mean(answers != labels), None, None, images, labels)
    choose = chooser(kind, settings, rng, count, NARROW)
    looks = model(images) if kind == "soft" else model(images, choose)
    each = model.looks // settings.digits
    last = each * np.arange(1, settings.digits + 1) - 1  # of every digit
    if kind == "learned" and settings.stop is not None:
        last = last_looks(rng, looks.stops)[:, None]
    last = np.broadcast_to(last, labels.shape)
    answers = np.take_along_axis(looks.logits.argmax(axis=-1), last, axis=1)
    return Found(np.mean(answers != labels), looks, last[:, -1], images, labels)
