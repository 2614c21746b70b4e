"""The models of glimpse.py: a recurrent network that takes look after look, and says what it saw.

Mnih et al. 2014, "Recurrent models of visual attention", section 3. All layers but the last are
rectified::

    g_t = glimpse(what(seen_t), where(l_t))          what was seen, and where
    h_t = core(g_t, h_(t-1))                         all that was seen so far
    logits_t = label(h_t)                            what it takes it for
    m_t = l_t + aim(hidden(h_t, seen_t, l_t))        the next place is drawn around this one

In `HardLooker` a gradient ends at every place and at the inputs of `hidden`: only REINFORCE trains
where to look, and it trains nothing else. In `SoftLooker` the gradient of the label runs through
the places.
"""

from typing import NamedTuple

import numpy as np
from sensor import GaussianRead

import attnc
from attnc.estimators import LearnedBaseline
from attnc.gradients import Gradients


class Looks(NamedTuple):
    """What came of some looks at B images: what has a gradient, then what has none."""

    logits: np.ndarray  # (B, T, classes), after each look
    means: np.ndarray | None  # (B, T - 1, 2): around which the next place was drawn
    stops: np.ndarray | None  # (B, T - 1): logits of having seen enough after a look
    places: np.ndarray  # (B, T, 2) as drawn; beyond -1..1 the nearest place in it is looked at
    seen: np.ndarray  # (B, T, values)
    states: np.ndarray  # (B, T, size)
    recalled: np.ndarray | None  # (B, T, T): weights of the glimpses in a look back


class Looker(attnc.Layer):
    """What both kinds share: from what is seen to the label.

    Parameters
    ----------
    sensor : Retina or GaussianRead
    looks : int
        T, in all.
    size : int
        Of the state.
    digits : int
        How many are asked for, one after the other, each for the same number of looks.
    look_back : bool
        Whether the label may also see the glimpses so far, by attention from the state: a second
        look, at what is remembered.
    place_size : int
        How many numbers a place is.
    """

    def __init__(self, sensor, looks, size, digits, look_back, place_size, rng, dtype):
        super().__init__(dtype)
        self.sensor, self.looks, self.size, self.digits = sensor, looks, size, digits
        self.made = made = {"rng": rng, "dtype": dtype}
        self.what = attnc.Linear(sensor.values, size // 2, **made)
        self.where = attnc.Linear(place_size + digits - 1, size // 2, **made)
        self.glimpse = attnc.Linear(size, size, **made)
        self.core = attnc.Linear(2 * size, size, **made)
        self.look_back = attnc.MultiplicativeAttention(size, size, **made) if look_back else None
        self.label = attnc.Linear((1 + look_back) * size, 10, **made)

    def _take_in(self, seen, place, state, number):
        """The glimpse and the next state; and the way back to seen, place and the state."""
        half = self.size // 2
        asked = np.zeros((len(place), self.digits - 1), self.dtype)
        asked[:, : number * self.digits // self.looks] = 1  # how many digits are read already
        place_size = place.shape[1]
        what, what_back = rectified(self.what, seen)
        where, where_back = rectified(self.where, np.concatenate([place, asked], axis=1))
        glimpse, glimpse_back = rectified(self.glimpse, np.concatenate([what, where], axis=1))
        state, core_back = rectified(self.core, np.concatenate([glimpse, state], axis=1))

        def back(dstate, dglimpse):
            dcore = core_back(dstate)
            dboth = glimpse_back(dcore[:, : self.size] + dglimpse)
            dplace = where_back(dboth[:, half:])[:, :place_size]
            return what_back(dboth[:, :half]), dplace, dcore[:, self.size :]

        return glimpse, state, back

    def products(self, size, looks=None, aims=True):
        """How many numbers are multiplied and added for an image of this side, with so many looks.

        Without what aims at the next place, where that is not asked.
        """
        looks = self.looks if looks is None else looks
        layers = [self.what, self.where, self.glimpse, self.core]
        layers += [self.hidden, self.aim] if aims else []
        each = sum(layer.parameters["weight"].size for layer in layers) + self.sensor.products(size)
        if self.look_back is not None:  # the state by a matrix, then scores and context
            each += self.size**2 + self.size * (looks + 1)
        return looks * each + self.digits * self.label.parameters["weight"].size

    def _answer(self, glimpses, states):
        """Logits and weights of a look back; and the way back to the glimpses and the states."""
        if self.look_back is None:
            logits, label_back = attnc.vjp(self.label, states)
            return logits, None, lambda dlogits: (np.zeros_like(states), label_back(dlogits).x)
        (recalled, weights), recall_back = attnc.vjp(
            self.look_back, states, glimpses, causal=True, return_weights=True
        )
        both = np.concatenate([states, recalled], axis=2)
        logits, label_back = attnc.vjp(self.label, both)

        def back(dlogits):
            dboth = label_back(dlogits).x
            dquery, dmemory = recall_back(dboth[:, :, self.size :])
            return dmemory, dboth[:, :, : self.size] + dquery

        return logits, weights, back


class HardLooker(Looker):
    """Each look is at one place, drawn from a normal distribution around what the network aims at.

    The network that aims sees the state and, which Mnih et al. have not, the last glimpse as it is:
    a state that learns to tell digits from each other forgets where there might be one.
    """

    def __init__(
        self, sensor, looks, size=128, *, digits=1, look_back=False, rng=None, dtype="float32"
    ):
        super().__init__(sensor, looks, size, digits, look_back, 2, rng, dtype)
        self.hidden = attnc.Linear(size + sensor.values + 2, size, **self.made)
        self.aim = attnc.Linear(size, 3, **self.made)  # row, column, enough
        self.aim.parameters["weight"] *= 0.1  # to begin with it stays where it is
        self.baseline = LearnedBaseline(size, dtype=dtype)
        self.stop_baseline = LearnedBaseline(size, dtype=dtype)

    def _vjp(self, images, choose):
        """Look at images; ``choose(number, means)`` gives the place (B, 2) of each look.

        The first has no means. The pullback takes the gradients of logits, means and stops.
        """
        look, count = self.sensor.open(images), len(images)
        state = np.zeros((count, self.size), self.dtype)
        means, taken, steps = None, [], []
        for number in range(self.looks):
            place = np.asarray(choose(number, means), self.dtype)
            at = place.clip(-1, 1)
            seen = look(at).reshape(count, -1)
            glimpse, state, back = self._take_in(seen, at, state, number)
            # Detached: what comes back to the inputs of `hidden` goes nowhere.
            inputs = np.concatenate([state, seen, at], axis=1)
            hidden, hidden_back = rectified(self.hidden, inputs)
            aimed, aim_back = attnc.vjp(self.aim, hidden)
            means = at + aimed[:, :2]
            taken.append((glimpse, state, means, aimed[:, 2], place, seen))
            steps.append((back, hidden_back, aim_back))
        glimpses, states, means, stops, places, seen = (
            np.stack(each, axis=1) for each in zip(*taken, strict=True)
        )
        logits, recalled, answer_back = self._answer(glimpses, states)
        looks = Looks(logits, means[:, :-1], stops[:, :-1], places, seen, states, recalled)

        def pullback(dlogits=None, dmeans=None, dstops=None):
            if dlogits is not None:
                dglimpses, dstates = answer_back(dlogits)
                dstate = 0
                for number in reversed(range(self.looks)):
                    back, _, _ = steps[number]
                    _, _, dstate = back(dstates[:, number] + dstate, dglimpses[:, number])
            if dmeans is not None or dstops is not None:
                for number in range(self.looks - 1):
                    daimed = np.zeros((count, 3), self.dtype)
                    if dmeans is not None:
                        daimed[:, :2] = dmeans[:, number]
                    if dstops is not None:
                        daimed[:, 2] = dstops[:, number]
                    _, hidden_back, aim_back = steps[number]
                    hidden_back(aim_back(daimed).x)
            return Gradients({})

        return looks, pullback


class SoftLooker(Looker):
    """Each look is a grid of Gaussian filters (`GaussianRead`), which the network moves.

    The first grid covers all of the image. Nothing is detached: the gradient of the label goes
    through what is seen to where it is seen.
    """

    def __init__(
        self, sensor, looks, size=128, *, digits=1, look_back=False, rng=None, dtype="float32"
    ):
        place_size = GaussianRead.NUMBERS
        super().__init__(sensor, looks, size, digits, look_back, place_size, rng, dtype)
        self.hidden = attnc.Linear(size + sensor.values + place_size, size, **self.made)
        self.aim = attnc.Linear(size, place_size, **self.made)
        self.aim.parameters["weight"] *= 0.1  # to begin with it stays where it is

    def _vjp(self, images):
        """Look at images. The pullback takes the gradient of the logits."""
        count, width = len(images), self.sensor.width
        state = np.zeros((count, self.size), self.dtype)
        place = np.zeros((count, GaussianRead.NUMBERS), self.dtype)
        taken, steps = [], []
        for number in range(self.looks):
            seen, read_back = self.sensor.read(images, place)
            seen = seen.reshape(count, -1)
            glimpse, state, back = self._take_in(seen, place, state, number)
            taken.append((glimpse, state, place, seen))
            inputs = np.concatenate([state, seen, place], axis=1)
            hidden, hidden_back = rectified(self.hidden, inputs)
            aimed, aim_back = attnc.vjp(self.aim, hidden)
            place = place + aimed
            steps.append((back, read_back, hidden_back, aim_back))
        glimpses, states, places, seen = (
            np.stack(each, axis=1) for each in zip(*taken, strict=True)
        )
        logits, recalled, answer_back = self._answer(glimpses, states)
        looks = Looks(logits, None, None, places, seen, states, recalled)

        def pullback(dlogits):
            dglimpses, dstates = answer_back(dlogits)
            dplace, dstate = np.zeros_like(place), np.zeros_like(state)
            for number in reversed(range(self.looks)):
                back, read_back, hidden_back, aim_back = steps[number]
                dinputs = hidden_back(aim_back(dplace).x)
                dstate = dstate + dinputs[:, : self.size]
                dseen, dwhere, dstate = back(dstates[:, number] + dstate, dglimpses[:, number])
                dseen = dseen + dinputs[:, self.size : -place.shape[1]]
                dplace = dplace + dwhere + dinputs[:, -place.shape[1] :]
                dplace += read_back(dseen.reshape(count, width, width))
            return Gradients({})

        return looks, pullback


def rectified(layer, x):
    """The positive part of what a Linear makes of x, and the way back."""
    y, back = attnc.vjp(layer, x)
    y = np.maximum(y, 0, out=y)
    return y, lambda dy: back(dy * (y > 0)).x
