"""What endpoints that speak OpenAI's chat protocol say, and what follows from it: one place for all
that ask one."""

from .answer import Answer, BadAnswerError
from .pace import Pace
from .receive import receive
from .retry_after import asked_wait_s
from .trouble import Trouble, trouble_of

__all__ = [
    "Answer",
    "BadAnswerError",
    "Pace",
    "Trouble",
    "asked_wait_s",
    "receive",
    "trouble_of",
]
