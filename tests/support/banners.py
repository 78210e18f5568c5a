"""What other programs say first when they meet the wrong port, as captured or as their specifications have it."""

from typing import Final

BANNERS: Final = (
    # HTTP, by browsers, scanners and proxies
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: zgrab/0.x\r\n\r\n",
    b"POST /rpc HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n" + bytes(4),
    b"GET /info/refs?service=git-upload-pack HTTP/1.1\r\nHost: example.org\r\n\r\n",
    # TLS: 1.2, 1.3, 1.0, an alert, SSL 2
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"\x16\x03\x03\x00\x7a\x01\x00\x00\x76\x03\x03" + bytes(range(64)),
    b"\x16\x03\x00\x00\x69\x01\x00\x00\x65\x03\x00" + bytes(64),
    b"\x15\x03\x03\x00\x02\x02\x46",
    b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(35),
    # Shells and files
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"SSH-2.0-Go\r\n",
    b"SSH-1.99-Cisco-1.25\n",
    b"\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23\xff\xfd\x27",
    b"220 ftp.example.org FTP server ready\r\n",
    b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n",
    b"003dgit-upload-pack /repository.git\0host=example.org\0",
    b"000eversion 2\n0000",
    # Mail and chat
    b"EHLO example.org\r\n",
    b"220 mail.example.org ESMTP\r\n",
    b"* OK IMAP4rev1 ready\r\n",
    b"+OK POP3 ready\r\n",
    b"NICK guest\r\nUSER guest 0 * :guest\r\n",
    b"<?xml version='1.0'?><stream:stream to='example.org' xmlns='jabber:client'>",
    # Databases, queues, caches
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    b"\x00\x00\x00\x54\x00\x03\x00\x00user\0postgres\0database\0postgres\0\0",
    b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(60),
    b"*1\r\n$4\r\nPING\r\n",
    b"version\r\n",
    b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
    b"AMQP\x00\x00\x09\x01",
    b"\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00" + bytes(42),
    b"\x04\x00\x00\x00\x05\x00\x00\x00\x00",
    # Windows
    b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    b"\x00\x00\x00\xa4\xff\x53\x4d\x42\x72" + bytes(32),
    b"\x05\x00\x0b\x03\x10\x00\x00\x00\x48\x00\x00\x00" + bytes(60),
    # Voice, names, proxies
    b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm\r\n\r\n",
    b"\x00\x1d\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01",
    b"\x05\x01\x00",
    b"\x04\x01\x01\xbb\xc0\x00\x02\x01\x00",
    # Other networks of peers
    b"\x13BitTorrent protocol" + bytes(48),
    b"\x13/multistream/1.0.0\n",
    b"\xf9\xbe\xb4\xd9version\x00\x00\x00\x00\x00\x66\x00\x00\x00" + bytes(106),
    b"\x2e\xa7\xd9\x0b\x00\x00\x00\x10" + bytes(16),
    # A Guts node of another kind of handshake, and nothing in particular
    b"\x00\x21" + bytes(33),
    b"\x00\x00",
    b"\xff" * 64,
    bytes(64),
)
