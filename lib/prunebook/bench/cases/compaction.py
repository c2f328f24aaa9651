"""Compaction of a cache: holes filled in place, beside survivors gathered into a new cache."""

from functools import partial

import torch

from ...kernels.attention.compaction import fill_holes, fill_holes_reference, take_kept
from .. import work
from ..case import Case, Operands, Provider, share_different
from ..record import OWN

KERNEL = "compaction"
_WIDTH = 128


def cases() -> list[Case]:
    """The cases of this family."""
    return [case(32768, 16384, 8, rank=0)]


def case(slots: int, kept: int, heads: int, rank: int, width: int = _WIDTH) -> Case:
    """Keys and values of `heads` KV heads, each of which keeps `kept` random slots."""
    providers = [
        Provider(
            "prunebook",
            partial(_in_place, kept),
            note="in place and in another order, which attention ignores",
        ),
        Provider(
            "gather and contiguous",
            _gather,
            prepare=_with_indices,
            note="its indices are there before the clock starts; takes a second cache",
        ),
        Provider(
            "prunebook, into a new cache",
            partial(_taken, kept),
            role=OWN,
            note="survivors in their order",
        ),
    ]
    return Case(
        KERNEL,
        {"slots": slots, "kept": kept, "heads": heads, "width": width},
        work.fill_holes(heads, slots, kept, width),
        partial(_operands, slots, kept, heads, width),
        partial(_truths, kept),
        _error,
        providers,
        written=("keys", "values"),
        rank=rank,
        seconds=10,
    )


def _operands(
    slots: int, kept: int, heads: int, width: int, generator: torch.Generator
) -> Operands:
    options = {"generator": generator, "device": generator.device}
    chosen = torch.rand(1, heads, slots, **options).topk(kept).indices
    keep = torch.zeros(1, heads, slots, dtype=torch.bool, device=generator.device)
    keep.scatter_(2, chosen, True)
    keys = torch.randn(1, heads, slots, width, **options).bfloat16()
    values = torch.randn(1, heads, slots, width, **options).bfloat16()
    return {"keys": keys, "values": values, "keep": keep}


def _truths(kept: int, o: Operands) -> list[list[torch.Tensor]]:
    """The cache in both orders: survivors in their order, and with the holes filled."""
    tensors = [o["keys"], o["values"]]
    ordered = [x[o["keep"]].view(*x.shape[:2], kept, -1) for x in tensors]
    fill_holes_reference(o["keep"], tensors)
    return [ordered, [x[:, :, :kept] for x in tensors]]


def _error(result: list[torch.Tensor], truths: list[list[torch.Tensor]]) -> float:
    """The share of entries that differ from the order that fits better."""
    return min(max(map(share_different, result, truth)) for truth in truths)


def _in_place(kept: int, o: Operands) -> list[torch.Tensor]:
    tensors = [o["keys"], o["values"]]
    fill_holes(o["keep"], tensors)
    return [x[:, :, :kept] for x in tensors]


def _taken(kept: int, o: Operands) -> list[torch.Tensor]:
    return take_kept(o["keep"], kept, [o["keys"], o["values"]])


def _with_indices(o: Operands) -> Operands:
    """The kept slots of each head, `[1, heads, kept, 1]`."""
    heads = o["keep"].shape[1]
    return o | {"indices": o["keep"].nonzero()[:, 2].view(1, heads, -1, 1)}


def _gather(o: Operands) -> list[torch.Tensor]:
    return [
        x.gather(2, o["indices"].expand(-1, -1, -1, x.shape[3])).contiguous()
        for x in (o["keys"], o["values"])
    ]
