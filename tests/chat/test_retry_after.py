"""How long endpoints ask to wait, in the forms they have for it."""

from email.utils import formatdate

import pytest

from avar_fast.chat import retry_after as waiting
from avar_fast.chat.retry_after import asked_wait_s

NOW = 1_800_000_000


def http_date(seconds):
    return formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3),
        ({"retry-after": http_date(90)}, 90),
        ({"retry-after": http_date(-90)}, None),
        ({"retry-after": http_date(-3600), "date": http_date(-3690)}, 90),
        ({"retry-after": http_date(3690), "date": http_date(3600)}, 90),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00", "date": "Wed, 21 Oct 2015 07:27:00 GMT"}, 60),
        ({"retry-after": "2015-10-21T07:28:00Z", "date": "Wed, 21 Oct 2015 07:27:00 GMT"}, 60),
        ({"retry-after": "Wed, 99 Oct 2015"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "6m0s"}, 360),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW + 40)}, 40),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str((NOW + 40) * 1e3)}, 40),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "12"}, None),
        ({"x-ratelimit-reset": "12"}, None),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "12"}, 12),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "20s",
            },
            20,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
    ],
)
def test_what_is_asked(headers, wait, monkeypatch):
    monkeypatch.setattr(waiting.time, "time", lambda: NOW)
    found = asked_wait_s(headers)
    assert found is None if wait is None else found == pytest.approx(wait, abs=1e-3)
