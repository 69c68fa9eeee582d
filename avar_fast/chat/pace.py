"""Decides when the next request may be sent to an endpoint."""

import asyncio
import random


class Pace:
    """A rate limit, and pauses that the endpoint asks for. A pause applies to all its requests.

    Args:
        interval_s: smallest number of seconds between two requests.
        backoff_s: seconds before the first retry; they double with each retry.
        max_backoff_s: largest number of seconds before a retry.
    """

    def __init__(self, interval_s: float, backoff_s: float, max_backoff_s: float) -> None:
        self.interval_s, self.backoff_s, self.max_backoff_s = interval_s, backoff_s, max_backoff_s
        self._next = 0.0
        self._paused_until = 0.0

    async def turn(self) -> None:
        """Waits until the rate limit and a pause, if there is one, allow the next request."""
        clock = asyncio.get_running_loop().time
        while True:
            send_at = max(clock(), self._next, self._paused_until)
            self._next = send_at + self.interval_s
            await asyncio.sleep(send_at - clock())
            if clock() >= self._paused_until:
                return
            # A pause began during the wait. The loop keeps the interval after the pause as well.

    async def back_off(self, attempt: int, asked_s: float | None) -> None:
        """Handles a failed attempt: starts the pause that the endpoint asked for, or else waits.

        Args:
            attempt: number of the failed attempt, from 0.
            asked_s: seconds that the endpoint asked to wait; None if it did not ask.
        """
        clock = asyncio.get_running_loop().time
        if asked_s is not None:
            self._paused_until = max(self._paused_until, clock() + asked_s)
            return
        wait = min(self.backoff_s * 2**attempt, self.max_backoff_s)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
