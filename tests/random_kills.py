"""Runs a training command again and again in children that are killed (SIGKILL) at random moments.

    python random_kills.py MODULE KILLS SEED FOLDER ARGV…

A child that ends before its kill makes the moments of the next ones earlier, and FOLDER, its result, is removed. Prints
how many children there were.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import time

FIRST_LIMIT_SECONDS = 4.0


def main() -> None:
    module, kills, seed, folder, *argv = sys.argv[1:]
    command = importlib.import_module(module)
    for heavy in ("torch", "sentence_transformers", "pyarrow.parquet", "tqdm"):  # once, and not in every child
        importlib.import_module(heavy)
    rng, limit, killed, children = random.Random(seed), FIRST_LIMIT_SECONDS, 0, 0
    while killed < int(kills):
        children += 1
        child = os.fork()
        if not child:
            command.main(argv)
            os._exit(0)
        time.sleep(rng.uniform(0, limit))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif os.WEXITSTATUS(status):
            sys.exit(f"a child ended with {os.WEXITSTATUS(status)}")
        else:
            limit *= 0.7
            shutil.rmtree(folder)
    print(f"{children} children")


if __name__ == "__main__":
    main()
