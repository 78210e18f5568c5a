"""What the operator is told about receipts: from the database, and from what has just come in."""

import base64

from guts.events import AwaitReceipts
from guts.ids import AuthorId, RepositoryId
from guts.node.driver import Driver
from guts.node.persistence import stored_receipt
from guts.node.repositories import Repositories
from guts.service.commands import NotFollowed
from guts.store import receipts as table
from guts.store.accepted import NotHeld


async def told(
    driver: Driver,
    repositories: Repositories,
    repository: RepositoryId,
    author: AuthorId | None,
    seq: int | None,
    replicas: int,
    timeout: float,  # noqa: ASYNC109 (told to the service)
) -> dict[str, object]:
    """Return who has confirmed which record, and the newest records that are held here, to compare with.

    With ``author`` and ``replicas`` this waits until so many other nodes have confirmed the author's record ``seq``
    (default: the newest one), or ``timeout`` (seconds) is over; the answer is what there is then.

    Raises:
        NotFollowed: the repository is not here; or, where it is to be waited for, not followed.
    """
    database = repositories.database
    try:
        known = await repositories.known(repository)
    except NotHeld:
        raise NotFollowed(repository) from None
    if author is not None and replicas:
        if seq is None:
            seq = head.seq if (head := known.head(author)) is not None else 0
        before = await database.read(table.load, repository)
        confirmed = frozenset(row.peer for row in before if row.author == author and row.seq >= seq)
        await driver.execute(AwaitReceipts(repository, author, seq, replicas, confirmed, timeout))
    rows = {(row.author, row.peer): row for row in await database.read(table.load, repository)}
    # What has just come may not have been written yet.
    for receipt in driver.service.receipts.of(repository):
        row = stored_receipt(receipt)
        if (older := rows.get((row.author, row.peer))) is None or older.seq < row.seq:
            rows[row.author, row.peer] = row
    wanted = [row for row in rows.values() if author is None or (row.author == author and row.seq >= (seq or 0))]
    return {
        "repository": str(repository),
        "receipts": [
            {
                "peer": str(row.peer),
                "author": str(row.author),
                "seq": row.seq,
                "hash": row.hash.hex(),
                "signed_ms": row.time_ms,
                "receipt": base64.b64encode(row.encoded).decode(),
            }
            for row in sorted(wanted, key=lambda row: (row.author, -row.seq, row.time_ms, row.peer))
        ],
        "known": len(driver.service.news.holders(repository)),
        "records": [
            {
                "author": str(header.author),
                "seq": header.seq,
                "hash": header.hash.hex(),
                "header": base64.b64encode(header.encoded).decode(),
            }
            for header in await database.read(table.load_headers, repository)
            if author is None or header.author == author
        ],
    }
