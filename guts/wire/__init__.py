"""Plaintexts <-> messages and streams: everything of docs/protocol.md §2–§4 that is bytes.

::

    socket bytes <-> SecureChannel (secure) <-> frames <-> Connection (connection) <-> messages, streams
                                                           ├── Inbox (inbox): stream 0 -> whole messages
                                                           ├── StreamTable, ReceiveWindow, SendQueue (streams)
                                                           └── codec <- messages <- fields; limits

Pure: no sockets, no clock. ``guts.net.tcp`` is the asyncio shell around it.

Promised:

- Whatever bytes arrive, in whatever pieces, only a ``PeerFault`` comes out, and it ends the connection.
- A message that comes out is canonical and inside every bound of ``limits``: it encodes to the same bytes.
- What a peer can make this side hold: one incomplete transport message (64 KiB), one incomplete Refs
  (4 MiB + 64 KiB), and the windows of stream 0 and of the streams it may use. Windows are 1 MiB and grow,
  only for readers that keep up, by 32 MiB in all.
- What this side holds for a peer that does not read: 8 MiB or 256 messages, 64 control messages, and 256 KiB
  per stream. Full: gossip is dropped first, then the connection ends; writers of streams wait.
- Pings, pongs, goodbyes, credit and resets pass everything that waits. Messages and streams share: neither
  starves the other, and streams take turns.

Not promised: that a message makes sense at this point of the conversation, that a signed record in it is
authentic (``guts.records``, ``guts.trust``), that a request is ever answered, or that reading pauses: a shell
that keeps calling ``receive_data`` must see to it that control messages are handled as fast as they come.
"""
