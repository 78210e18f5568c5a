"""The identity documents that a node holds of a repository, checked here once more."""

import base64
from typing import TYPE_CHECKING

from guts.cli.answer import Answer, BadAnswer
from guts.ids import AuthorId, RepositoryId

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.cli.client import ControlClient
    from guts.trust.chain import IdentityChain


def known_chain(client: "ControlClient", repository: RepositoryId) -> "IdentityChain":
    """Return the identity documents that the node holds. Raises: ``BadAnswer``: they are not this repository's."""
    from guts.errors import PeerFault
    from guts.trust.chain import IdentityChain

    answer = Answer.of(client.get(f"/v1/repositories/{repository}/publication"))
    try:
        chain = IdentityChain.from_documents([base64.b64decode(text) for text in answer.texts("documents")])
    except (PeerFault, ValueError) as error:
        raise BadAnswer(f"has no valid identity documents: {error}") from None
    if chain.repository != repository:
        raise BadAnswer(f"is about another repository than {repository}")
    return chain


def removal_epochs(chain: "IdentityChain") -> dict[AuthorId, int]:
    """Return who was a maintainer and is not, with the epoch that removed it last, by that epoch."""
    epochs = {point.author: document.epoch for document in chain.history for point in document.removed}
    return {point.author: epochs[point.author] for point in chain.former()}
