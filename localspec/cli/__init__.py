"""The command line: flags and rendering, one file a command. stdout is data, stderr is talk.

A command makes two hundred thousand objects that stay. To look for garbage among them, as Python
does after each 700, takes a tenth of its start.
"""

import gc

gc.set_threshold(200_000, 10, 10)
