"""Discovery: the DHT that finds who holds a repository, and where a peer is."""
