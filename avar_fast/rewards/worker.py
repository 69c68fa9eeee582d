"""The process that runs a reward function: ``python -m avar_fast.rewards.worker FD RULE|NAME``.

It reads pickled (time limit in seconds, arguments) from the connection at file descriptor FD and
writes the rewards and faults, until the other end is closed.
"""

import resource
import signal
import sys
from multiprocessing.connection import Connection

from ..extras import MissingPackageError, needs
from .functions import RewardFault, Takes, call, load_function, taken_by
from .rules import RULES

RULE_BYTES = 4 * 2**30  # address space, so that an expression cannot use up the machine's memory
GRACE_SECONDS = 5.0  # the parent kills first; the worker's own alarm is for when the parent is gone


def main(descriptor: int, name: str) -> None:
    """Serves one function until the connection is closed."""
    connection = Connection(descriptor)
    try:
        if name in RULES:
            resource.setrlimit(resource.RLIMIT_AS, (RULE_BYTES, RULE_BYTES))
            function, takes = RULES[name].score, Takes()
            with needs("avar_fast.train"):  # imports libraries before the time limit applies
                function("<answer>2x+1</answer>", "2x+3")
        else:
            function = load_function(name)
            takes = taken_by(function)
    except (MissingPackageError, ValueError) as error:
        connection.send(("error", str(error)))
        return
    connection.send(("ready", takes))
    # The signal's default action ends the process even while the interpreter's lock is held.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            seconds, arguments = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
        if name in RULES:
            try:
                result = function(*arguments), []
            except Exception as error:
                result = None, [RewardFault(0, f"raised {type(error).__name__}: {error}")]
        else:
            result = call(function, arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(result)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
