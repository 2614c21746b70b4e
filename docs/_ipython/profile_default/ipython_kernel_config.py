"""What the kernels that run notebooks for the site read, in the place of their user's settings."""

c = get_config()  # noqa: F821, by IPython
c.HistoryManager.enabled = False
c.IPKernelApp.log_level = "ERROR"  # they warn about each connection
