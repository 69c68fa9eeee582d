"""Whether an address is this machine's own."""

from urllib.parse import urlsplit

HOSTS = ("127.0.0.1", "localhost", "::1")


def is_loopback(url: str) -> bool:
    """A proxy that the environment names cannot reach such an address: clients go there by
    themselves."""
    return urlsplit(url).hostname in HOSTS
