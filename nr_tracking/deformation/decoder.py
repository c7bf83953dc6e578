"""The deformation decoder: from associated patches to a rigid motion of each patch.

A graph U-Net over the levels of a patch hierarchy. Each level convolves twice, means are pooled into the parents, and
on the way up parents hand their features back to their children beside a skip connection. The convolution is FeaStNet's
(Verma, Boyer and Verbeek, CVPR 2018): each edge picks softly among a few weight matrices by the difference of the
features at its ends, so it depends on neither the order nor the number of neighbours.

Merrouche et al. 2024, sec. 3.3, with the 6-D rotations of Zhou et al., CVPR 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nr_tracking.config import ModelConfig
from nr_tracking.deformation.patches import PatchGraph
from nr_tracking.deformation.rotations import rotation_from_6d
from nr_tracking.sensing.tensors import as_array, loops_for


class FeaStConv(nn.Module):
    """Graph convolution with ``heads`` weight matrices that edges choose among; (P, inputs) -> (P, outputs)."""

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads, self.outputs = heads, outputs
        self.weight = nn.Linear(inputs, heads * outputs, bias=False)
        self.choice = nn.Linear(inputs, heads, bias=False)
        self.offset = nn.Parameter(torch.zeros(heads))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Each node takes the mean over its incoming edges; ``senders`` and ``receivers`` (E,) include self-loops."""
        messages = self.weight(x).view(-1, self.heads, self.outputs)
        # The choice reads u.(x_i - x_j): it sees shapes, not places.
        chosen = self.choice(x)
        if (loops := loops_for("patch_graphs", messages, chosen, self.offset)) is not None:
            edges = as_array(senders), as_array(receivers)
            mean = loops.mixed_messages(as_array(messages), as_array(chosen), as_array(self.offset), *edges)
            return torch.from_numpy(mean) + self.bias
        messages = messages[senders]
        share = torch.softmax(chosen[receivers] - chosen[senders] + self.offset, dim=1)
        mixed = (share[:, :, None] * messages).sum(1)
        degree = torch.zeros(len(x), dtype=x.dtype, device=x.device).index_add_(
            0, receivers, torch.ones_like(mixed[:, 0])
        )
        total = torch.zeros(len(x), self.outputs, dtype=x.dtype, device=x.device).index_add_(0, receivers, mixed)
        return total / degree[:, None] + self.bias


class GraphBlock(nn.Module):
    """Two convolutions with normalisation and a residual path; (P, inputs) -> (P, width)."""

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = FeaStConv(inputs, width, heads), FeaStConv(width, width, heads)
        self.norm_first, self.norm_second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.skip = nn.Linear(inputs, width) if inputs != width else nn.Identity()

    def forward(self, x: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Convolve twice along the edges of one level."""
        y = torch.nn.functional.gelu(self.norm_first(self.first(x, senders, receivers)))
        y = self.norm_second(self.second(y, senders, receivers))
        return torch.nn.functional.gelu(y + self.skip(x))


class DeformationDecoder(nn.Module):
    """Predicts the motion of each patch of surface i towards surface j from the associations between them.

    The features are the embeddings that made the associations: ``model.embedding_channels`` wide. The number of levels
    is three, or fewer where the graph has fewer. The last layer starts at zero, so an untrained decoder answers with
    the associations themselves: identity rotations, and every centre moved onto its match.
    """

    LEVELS = 3

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        width, heads = model.deformation_width, model.deformation_heads
        # Where the patch is, where it is matched to, and the way between: 9 numbers beside the two features.
        self.inlet = nn.Linear(2 * model.embedding_channels + 9, width)
        self.down = nn.ModuleList(GraphBlock(width, width, heads) for _ in range(self.LEVELS))
        self.up = nn.ModuleList(GraphBlock(2 * width, width, heads) for _ in range(self.LEVELS - 1))
        last = nn.Linear(width, 9)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last)

    def forward(
        self,
        centres_i: Tensor,
        features_i: Tensor,
        matched_centres: Tensor,
        matched_features: Tensor,
        graph: PatchGraph,
    ) -> tuple[Tensor, Tensor]:
        """Return rotations (P, 3, 3) and translations (P, 3), the new positions of the centres.

        ``centres_i`` (P, 3) patch centres of surface i in box coordinates; ``features_i`` (P, E); ``matched_centres``
        (P, 3) and ``matched_features`` (P, E) are the association times centres and features of surface j; ``graph``
        is that of surface i. A vertex of patch k moves to ``R_k (v - c_k) + u_k``.
        """
        levels = graph.levels[: self.LEVELS]
        edges = [_edges(level.neighbours, len(level.centres), centres_i.device) for level in levels]
        parents = [torch.as_tensor(level.parent, device=centres_i.device).long() for level in levels[:-1]]

        motion = matched_centres - centres_i
        x = self.inlet(
            torch.cat((2 * centres_i, 2 * matched_centres, 10 * motion, features_i, matched_features), dim=1)
        )
        kept = []
        for depth, (senders, receivers) in enumerate(edges):
            x = self.down[depth](x, senders, receivers)
            if depth < len(parents):
                kept.append(x)
                x = _pool(x, parents[depth], len(levels[depth + 1].centres))
        for depth in reversed(range(len(parents))):
            x = self.up[depth](torch.cat((kept[depth], x[parents[depth]]), dim=1), *edges[depth])

        change = self.head(x)
        identity = change.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        return rotation_from_6d(identity + change[:, :6]), matched_centres + change[:, 6:]


def _edges(neighbours: object, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Senders and receivers (2E + P,) of an undirected graph with self-loops."""
    pairs = torch.as_tensor(neighbours, device=device).long()
    loops = torch.arange(count, device=device)
    return torch.cat((pairs[:, 0], pairs[:, 1], loops)), torch.cat((pairs[:, 1], pairs[:, 0], loops))


def _pool(x: Tensor, parent: Tensor, count: int) -> Tensor:
    """Mean of the children of each parent (count, width)."""
    total = torch.zeros(count, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, parent, x)
    children = torch.bincount(parent, minlength=count).clamp_min(1)
    return total / children[:, None].to(x.dtype)
