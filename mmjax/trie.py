"""A list of sequences as a trie of arrays, so that generation inside ``jit`` never leaves the list."""

from collections.abc import Iterable, Sequence

import flax.struct
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Array, Int

__all__ = ["Trie"]


class Trie(flax.struct.PyTreeNode):
    """The prefixes of a list of sequences; node 0 is the empty one.

    Attributes:
      next: ``[nodes, vocab_size]``: the node after a token, -1 where no sequence goes on with it. The end of a sequence
        is a token as any other; the node after it is that before it.
      end_id: the token that ends a sequence.
      depth: tokens of the longest sequence, its end counted: generation needs a ``max_length`` of as many.

    Example:
      >>> trie = Trie.of([[1, 2], [1]], vocab_size=4, end_id=0)
      >>> (trie.next[0] >= 0).tolist(), trie.depth
      ([False, True, False, False], 3)
    """

    next: Int[Array, "nodes vocab_size"]
    end_id: int = flax.struct.field(pytree_node=False)
    depth: int = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], *, vocab_size: int, end_id: int) -> "Trie":
        """The trie of token ids without their ends; a sequence may be the beginning of another.

        It takes ``nodes * vocab_size`` integers of four bytes: 3,000 answers of three words out of 2,000 take 50 MB.

        Raises:
          UsageError: no sequence, an end inside a sequence, an id that is not in the vocabulary.
        """
        if not 0 <= end_id < vocab_size:
            raise UsageError(f"{end_id=} must be one of the {vocab_size=} ids")
        children: list[dict[int, int]] = [{}]
        depth = 0
        for number, sequence in enumerate(sequences):
            node = 0
            for token in map(int, sequence):
                if token == end_id or not 0 <= token < vocab_size:
                    wrong = "the end inside it" if token == end_id else f"token {token}, not one of {vocab_size} ids"
                    raise UsageError(f"sequence {number} has {wrong}: {list(map(int, sequence))}")
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                node = children[node][token]
            children[node][end_id] = node
            depth = max(depth, len(sequence) + 1)
        if not depth:
            raise UsageError("a trie needs at least one sequence, got none")
        following = np.full((len(children), vocab_size), -1, np.int32)
        for node, edges in enumerate(children):
            following[node, list(edges)] = list(edges.values())
        return cls(jnp.asarray(following), end_id, depth)
