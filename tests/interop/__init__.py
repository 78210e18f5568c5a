"""Stock git against Guts: every case as a person would type it, through a node that holds the repository, through one
that does not, and with no node at all. After each: ``git fsck --full`` on both ends, and equal refs everywhere."""
