"""Opens many connections from many loopback addresses and says nothing, or one thing, in a process of its own.

    python -m tests.support.flood PORT COUNT ADDRESSES [HEX]

It prints ``open`` and how many were made when it knows of each, and holds them until its input ends.
"""

import contextlib
import resource
import selectors
import socket
import sys
import time


def addresses(count: int) -> list[str]:
    """Return ``count`` addresses of loopback, 5 in each /24, none of them 127.0.0.1's neighbour."""
    return [f"127.{77 + number // 1000}.{number // 5 % 200}.{number % 5 + 1}" for number in range(count)]


def main() -> None:
    """Run from the command line."""
    port, count, sources = (int(argument) for argument in sys.argv[1:4])
    words = bytes.fromhex(sys.argv[4]) if len(sys.argv) > 4 else b""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 100), hard))
    selector, held, made = selectors.DefaultSelector(), list[socket.socket](), 0
    for number in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((addresses(sources)[number % sources], 0))
        sock.connect_ex(("127.0.0.1", port))
        selector.register(sock, selectors.EVENT_WRITE)
        held.append(sock)
        if number % 50 == 49:
            made += _hear(selector, 0.0, words)
    deadline = time.monotonic() + 20.0
    while selector.get_map() and time.monotonic() < deadline:
        made += _hear(selector, 0.1, words)
    print("open", made, flush=True)
    sys.stdin.read()


def _hear(selector: selectors.BaseSelector, timeout: float, words: bytes) -> int:
    """Say ``words`` on the connections that are made now; return how many that are."""
    events = selector.select(timeout)
    for key, _ in events:
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        selector.unregister(sock)
        with contextlib.suppress(OSError):  # closed already
            sock.send(words)
    return len(events)


if __name__ == "__main__":
    main()
