"""When the next request to an endpoint may go out."""

import asyncio
import random


class Pace:
    """A rate limit, and pauses that the endpoint asks for, which hold for all its requests.

    Args:
        interval_s: least time between requests.
        backoff_s: before the first retry; doubles with each further one.
        max_backoff_s: of one wait.
    """

    def __init__(self, interval_s: float, backoff_s: float, max_backoff_s: float) -> None:
        self.interval_s, self.backoff_s, self.max_backoff_s = interval_s, backoff_s, max_backoff_s
        self._next = 0.0
        self._paused_until = 0.0

    async def turn(self) -> None:
        """Waits for the rate limit, and for the end of a pause."""
        clock = asyncio.get_running_loop().time
        while True:
            at = max(clock(), self._next, self._paused_until)
            self._next = at + self.interval_s
            await asyncio.sleep(at - clock())
            if clock() >= self._paused_until:
                return
            # The pause came meanwhile: after it, requests are as far apart as ever.

    async def back_off(self, attempt: int, asked_s: float | None) -> None:
        """After a failed attempt (0 for the first): begins the pause that the endpoint asked for,
        or waits."""
        clock = asyncio.get_running_loop().time
        if asked_s is not None:
            self._paused_until = max(self._paused_until, clock() + asked_s)
            return
        wait = min(self.backoff_s * 2**attempt, self.max_backoff_s)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
