"""The peers in PyTorch: the same LSTM and encoder, as a user of PyTorch would write them."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Lstm(nn.Module):
    """Embedding, stacked LSTM layers, logits from the last state."""

    def __init__(self, vocabulary: int, num_classes: int, *, units: int, depth: int, embedding_width: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_width)
        self.layers = nn.LSTM(embedding_width, units, depth, batch_first=True)
        self.logits = nn.Linear(units, num_classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids `(batch, length)` to logits `(batch, classes)`."""
        outputs, _ = self.layers(self.embedding(ids))
        return self.logits(outputs[:, -1])


class Block(nn.Module):
    """Attention by `scaled_dot_product_attention`, then feed-forward, each normalised before."""

    def __init__(self, width: int, num_heads: int, feed_forward: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        gelu = nn.GELU("tanh")  # as in our encoder
        self.feed = nn.Sequential(nn.Linear(width, feed_forward), gelu, nn.Linear(feed_forward, width))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(batch, length, width)` both ways; `mask` `(batch, 1, 1, length)`, True where a token may be seen."""
        batch, length, width = x.shape
        heads = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.output(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed(self.norm(x))


class Encoder(nn.Module):
    """The pre-norm encoder with sinusoidal positions, and logits from the mean of the real tokens."""

    def __init__(
        self, vocabulary: int, num_classes: int, *, depth: int, width: int, num_heads: int, feed_forward: int,
        dropout: float,
    ):  # fmt: skip
        super().__init__()
        if dropout:
            raise ValueError("the comparison is without dropout")
        self.width = width
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width, num_heads, feed_forward) for _ in range(depth))
        self.norm, self.logits = nn.LayerNorm(width, 1e-6), nn.Linear(width, num_classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids `(batch, length)` to logits `(batch, classes)`."""
        mask = ids != 0
        x = self.embedding(ids) * math.sqrt(self.width) + positions(ids.shape[1], self.width)
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        weights = mask[..., None].to(x.dtype)
        return self.logits((self.norm(x) * weights).sum(1) / weights.sum(1))


def positions(length: int, width: int) -> torch.Tensor:
    """Sines and cosines `(length, width)`."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


MODELS = {"lstm": Lstm, "transformer": Encoder}
