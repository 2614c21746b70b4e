"""How fast attnc is: next to PyTorch, JAX and plain NumPy, and next to what the machine can do.

``python -m benchmarks`` from the root of the repository measures everything and writes the tables.

=================  ==============================================================================
`cases`            what is measured: shapes, passes, work counted
`inputs`           the arrays of a case, the same for all contenders
`contenders`       who takes part, and the environment in which each of them runs
`with_attnc` ...   how each library does it: one file for each contender
`worker`           the process of one contender: checks, times, measures memory
`driver`           asks the workers in turn, round after round
`figures`          from seconds to rates, ratios and per cent
`goals`            what is to be reached
`table`            from figures to Markdown
=================  ==============================================================================
"""
