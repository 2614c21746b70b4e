"""A test file of otter-grader in its doctest format: what the calls print is fixed."""

OK_FORMAT = True

test = {
    "name": "attention",
    "points": 2,
    "suites": [
        {
            "type": "doctest",
            "scored": True,
            "setup": "",
            "teardown": "",
            "cases": [
                {
                    "hidden": False,
                    "locked": False,
                    "code": r"""
>>> import attnc, attnc.teaching
>>> attnc.teaching.check(attention, attnc.dot_product_attention, options=["mask"])
right: dot_product_attention
""",
                },
                {
                    "hidden": False,
                    "locked": False,
                    "code": r"""
>>> from attnc.teaching import puzzles
>>> puzzles.causal.check(causal)
solved: causal
""",
                },
            ],
        }
    ],
}
