"""The sockets of a node: authenticated connections over TCP.

``dial`` (``dial.py``) and ``Listener`` (``listener.py``) make ``TcpConnection`` (``tcp.py``), the asyncio shell
around ``guts.wire.Connection``; ``Stream`` (``stream.py``) is one bulk stream of it. UDP for discovery, and QUIC
later, sit beside.

One connection is three tasks in one TaskGroup, inside ``TcpConnection.run``:

- the *reader* takes bytes off the socket, hands stream bytes to their ``Stream`` and queues messages;
- the *dispatcher* gives the messages, one at a time and in order, to ``on_message``, and returns their credit
  when it is done with each; while they are withheld (``TcpConnection.withhold``), only those outside credit pass;
- the *writer* asks the ``Connection`` for bytes whenever the socket takes some.

Whichever fails cancels the others; ``run`` is the one place that catches a peer's faults and the network's, and
says in ``closed_by`` which it was. A bug (anything else) passes through and stops the node.

Promised:

- Every wait for a peer here is bounded: connect 5 s, handshake 5 s in all, a write that stalls 20 s, silence
  90 s. Waits inside ``Stream`` are the caller's to bound: only it knows what progress it expects.
- A message handler or stream reader that does not keep up stops its peer (credit runs out, then TCP), and costs
  the memory that ``guts.wire`` names, 256 messages, and one read of the socket.
- Handshakes are few at a time, and seldom, by address, by network and in all (``handshake_limits.py``). A peer that
  has proved nothing gets no answer but the handshake's, and leaves nothing behind but a line of DEBUG.
- Pings and gossip wait behind at most 128 KiB of ours and 128 KiB of the kernel's.

Not promised: who may stay, how many, and whether a message may come now; that is the service's to say.
"""
