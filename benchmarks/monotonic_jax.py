"""Monotonic alignments with JAX: the form of monotonic_torch.py, and the recurrence itself."""

import jax
import jax.numpy as jnp


def products(probability):
    """Each query by products and sums over all keys at once."""
    ones = jnp.ones_like(probability[:, :, :1])
    past = jnp.cumprod(jnp.concatenate([ones, 1 - probability[:, :, :-1]], -1), -1)
    kept, stops = jnp.clip(past, 1e-10, 1.0), probability * past

    def query(row, this):
        stops, kept = this
        row = stops * jnp.cumsum(row / kept, -1)
        return row, row

    by_query = stops.swapaxes(0, 1), kept.swapaxes(0, 1)
    return jax.lax.scan(query, _first(probability), by_query)[1].swapaxes(0, 1)


def recurrence(probability):
    """Key by key, exact."""

    def key(walk, this):
        chance, before = this
        reach = walk + before
        return (1 - chance) * reach, chance * reach

    def query(row, chances):
        row = jax.lax.scan(key, jnp.zeros_like(row[0]), (chances, row))[1]
        return row, row

    by_key = probability.transpose(1, 2, 0)  # (Tq, Tk, B)
    return jax.lax.scan(query, _first(probability).T, by_key)[1].transpose(2, 0, 1)


def _first(probability):
    return jnp.zeros_like(probability[:, 0]).at[:, 0].set(1)


FORMS = {"products": products, "recurrence": recurrence}
