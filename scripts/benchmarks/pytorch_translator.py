"""The translator in PyTorch: the same post-norm Transformer, as a user of PyTorch would write it."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.pytorch_texts import positions


class Attention(nn.Module):
    """Queries of one sequence, keys and values of another or the same, and the output's projection."""

    def __init__(self, width: int, num_heads: int, *, own: bool):
        super().__init__()
        self.num_heads, self.own = num_heads, own
        self.query = None if own else nn.Linear(width, width)
        self.rest, self.output = nn.Linear(width, (3 if own else 2) * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
        """`x` `(batch, length, width)` sees `memory`; `mask` `(batch, 1, 1, keys)`, True where it may."""
        batch, length, width = x.shape
        parts = self.rest(memory).view(batch, memory.shape[1], 3 if self.own else 2, self.num_heads, -1)
        heads = list(parts.permute(2, 0, 3, 1, 4))
        if self.query is not None:
            heads.insert(0, self.query(x).view(batch, length, self.num_heads, -1).transpose(1, 2))
        y = F.scaled_dot_product_attention(*heads, attn_mask=mask, is_causal=causal)
        return self.output(y.transpose(1, 2).reshape(batch, length, width))


class Feed(nn.Sequential):
    """Two dense layers, the ReLU between them."""

    def __init__(self, width: int, units: int):
        super().__init__(nn.Linear(width, units), nn.ReLU(), nn.Linear(units, width))


class Translator(nn.Module):
    """Encoder and decoder over one embedding, which is the output's kernel, too."""

    def __init__(self, vocabulary: int, *, depth: int, width: int, num_heads: int, feed_forward: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

        def attentions(own: bool) -> nn.ModuleList:
            return nn.ModuleList(Attention(width, num_heads, own=own) for _ in range(depth))

        def feeds() -> nn.ModuleList:
            return nn.ModuleList(Feed(width, feed_forward) for _ in range(depth))

        def norms(count: int) -> nn.ModuleList:
            return nn.ModuleList(nn.LayerNorm(width, 1e-6) for _ in range(count * depth))

        self.encoder = nn.ModuleDict({"own": attentions(True), "feed": feeds(), "norm": norms(2)})
        self.decoder = nn.ModuleDict(
            {"own": attentions(True), "cross": attentions(False), "feed": feeds(), "norm": norms(3)}
        )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids `(batch, length)` to vectors with their positions."""
        width = self.embedding.embedding_dim
        return self.embedding(ids) * math.sqrt(width) + positions(ids.shape[1], width)

    def forward(self, source: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Source ids and decoder input `(batch, length)` to logits `(batch, length, vocabulary)`."""
        mask = (source != 0)[:, None, None]
        x, norms = self.embed(source), iter(self.encoder["norm"])
        for own, feed in zip(self.encoder["own"], self.encoder["feed"], strict=True):
            x = next(norms)(x + own(x, x, mask, False))
            x = next(norms)(x + feed(x))
        memory = x
        x, norms = self.embed(before), iter(self.decoder["norm"])
        for own, cross, feed in zip(self.decoder["own"], self.decoder["cross"], self.decoder["feed"], strict=True):
            x = next(norms)(x + own(x, x, None, True))
            x = next(norms)(x + cross(x, memory, mask, False))
            x = next(norms)(x + feed(x))
        return x @ self.embedding.weight.T
