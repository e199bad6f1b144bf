"""Task vectors (Ilharco et al., arXiv 2212.04089): theta_arm - theta_root, the change of the weights by an arm's fits.
In place of the root another arm may stand, as in theta_rft - theta_sft: what reinforcement alone has changed.

A block is one named parameter. Tied parameters, such as an embedding that is also the output layer, are one block.
Blocks of arm and root are paired by name. On a CPU, differences are not held in memory: for a full fit, the tensors of
the arm and of the root are read from disk and subtracted in fp32 when they are needed. For an adapter, the vector stays
in factors, s * B A. An adapter on top of a full fit has both. Imports torch, so only jobs import this module.

    pool = Pool([root, self_prompt manifests], {"self_prompt": [...], "ppe": [...]})
    pool.vectors[0].delta("model.norm.weight")        # fp32, the block's shape
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imprint.artifacts import Factors
from imprint.composition.settings import VectorRef
from imprint.models import chains
from imprint.models.tensor_files import TensorFolder
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, read_manifest
from imprint.runtime.ranks import Ranks

CHUNK = 1 << 19
"""The most elements in a piece on a CPU. A few buffers of this size fit into the CPU's cache, so each tensor is read
from memory once and differences are never written to memory."""
GPU_CHUNK = 1 << 26
"""The most elements in a piece on a GPU, where each call has a fixed cost. A multiple of CHUNK, since partitions are
drawn by CHUNK on every device."""
CPU = torch.device("cpu")


class Part(NamedTuple):
    """What one rank holds of a block: consecutive `rows`, which are the elements `span` of the flat block."""

    rows: slice
    span: slice

    def within(self, span: slice) -> slice:
        """The place of elements of the block among those of this part."""
        return slice(span.start - self.span.start, span.stop - self.span.start)


class Blocks:
    """The parameters of an architecture. `shapes` has the shape of every block, by its name. `alias` maps the further
    names of tied parameters to the block's name."""

    def __init__(self, root: Path) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM
        config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=False)
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(p.shape) for name, p in model.named_parameters()}
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.alias = {
            name: names[id(parameter)]
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if names[id(parameter)] != name
        }

    def part(self, block: str, ranks: Ranks | None = None) -> Part:
        """What a rank holds of a block, or the whole block."""
        number, *others = self.shapes[block] or (1,)
        rows, width = (ranks or Ranks()).rows(number), torch.Size(others).numel()
        return Part(rows, slice(rows.start * width, rows.stop * width))

    def files(self, weights: TensorFolder, where: str) -> dict[str, str]:
        """Block -> its name in a folder of weights. Raises ImprintError if a block is missing or has another shape."""
        stored = {self.alias.get(name, name): name for name in weights.names if name in self.alias}
        stored |= {name: name for name in weights.names if name in self.shapes}
        for block, shape in self.shapes.items():
            if block not in stored:
                raise ImprintError(f"{where}: {weights.folder} has no block '{block}', which its root model has")
            if (stored_shape := list(weights.shape(stored[block]))) != list(shape):
                raise ImprintError(
                    f"{where}: block '{block}' is {stored_shape} in {weights.folder}, but {list(shape)} in its root "
                    "model"
                )
        return stored


class Chain:
    """The weights of a chain of manifests, read block by block: one full set of weights, and the adapters on top of
    it. `own` says whether a fit made the full set; if not, it is the root model's."""

    def __init__(self, name: str, manifests: list[Path], blocks: Blocks | None = None) -> None:
        links = chains.links(manifests)
        self.name = name
        self.root = links.root
        self.blocks = blocks or Blocks(links.root)
        self.weights = TensorFolder(links.weights)
        self.own = links.weights != links.root
        self._files = self.blocks.files(self.weights, f"'{name}'")
        self._factors: dict[str, dict[Path, Factors]] = {}
        for kind, folder in links.changes:
            for block, factors in plugins.load("artifacts", kind).factors(folder, self.blocks, name):
                self._factors.setdefault(block, {})[folder] = factors

    def full(self, block: str) -> torch.Tensor:
        """The block without adapters, [elements]: a view of the file, in the file's dtype."""
        return self.weights.read(self._files[block]).view(-1)

    def factors(self, block: str) -> dict[Path, Factors]:
        """The changes of a block by adapters, by the adapter's folder."""
        return self._factors.get(block, {})

    def read(self, block: str, device: torch.device = CPU, part: Part | None = None) -> torch.Tensor:
        """The block with its adapters, [elements], or a part of it. If an adapter changes it, a new fp32 tensor on
        `device`; else a view of the file."""
        rows, span = part or self.blocks.part(block)
        without_adapters, changes = self.full(block)[span], self.factors(block)
        if not changes:
            return without_adapters
        merged = without_adapters.to(device, torch.float32, copy=True).view(-1, *self.blocks.shapes[block][1:])
        for factors in changes.values():
            factors.of_rows(rows).on(device).add_to(merged)
        return merged.view(-1)


class Piece(NamedTuple):
    """Consecutive elements of a block, from `start` on in the flat block. `root` holds the root model's elements, fp32.
    `buffer` has the same length and device. All pieces of a block and all vectors share it, so each result in it
    overwrites the one before."""

    block: str
    start: int
    root: torch.Tensor
    buffer: torch.Tensor

    @property
    def span(self) -> slice:
        """The piece's place in the flat block."""
        return slice(self.start, self.start + len(self.root))


class Vector:
    """One task vector: the weights of `arm` minus those of `base`, which is the root model unless the config names
    another arm. In a block it consists of a difference of elements, which is read piece by piece if the vector is
    `dense`, and of the factors of adapters."""

    def __init__(self, name: str, arm: Chain, base: Chain) -> None:
        self.name, self.arm, self.base = name, arm, base

    @property
    def addend_includes_root(self) -> bool:
        """Whether `addend` returns the arm's weights (root + difference). If False, it returns the difference."""
        return not self.base.own

    def touches(self, block: str) -> bool:
        """Whether the vector may be other than zero in a block."""
        return self.dense or bool(self.factors(block))

    @property
    def dense(self) -> bool:
        """Whether the vector has a difference of elements: arm and base have different full sets of weights."""
        return self.arm.weights.folder != self.base.weights.folder

    def addend(self, piece: Piece) -> torch.Tensor:
        """`arm[piece.span]` of the block without adapters, on the piece's device, or the difference."""
        return self._elements(piece) if self.addend_includes_root else self.difference(piece)

    def difference(self, piece: Piece) -> torch.Tensor:
        """`arm[piece.span] - base[piece.span]` of the block without adapters, fp32, in the piece's buffer."""
        if not self.base.own:
            return torch.sub(self._elements(piece), piece.root, out=piece.buffer)
        base = self.base.full(piece.block)[piece.span].to(piece.root.device, torch.float32)
        return torch.sub(self._elements(piece), base, out=piece.buffer)

    def _elements(self, piece: Piece) -> torch.Tensor:
        return self.arm.full(piece.block)[piece.span].to(piece.root.device)

    def factors(self, block: str) -> list[Factors]:
        """The changes of a block by the arm's adapters, less those by the base's."""
        ours, theirs = self.arm.factors(block), self.base.factors(block)
        added = [factors for folder, factors in ours.items() if folder not in theirs]
        removed = [factors for folder, factors in theirs.items() if folder not in ours]
        return [*added, *(factors._replace(scale=-factors.scale) for factors in removed)]

    def delta(self, block: str) -> torch.Tensor:
        """The vector in a block: fp32 in the block's shape, with its factors multiplied out."""
        shape = self.base.blocks.shapes[block]
        if self.dense:
            flat = self.arm.full(block).float() - self.base.full(block).float()
        else:
            flat = torch.zeros(shape).view(-1)
        for factors in self.factors(block):
            factors.add_to(flat.view(shape))
        return flat.view(shape)


class RandomVector(Vector):
    """A control with Gaussian blocks in place of a vector's. They have the mean and standard deviation of the root's
    block (arXiv 2407.02880), or with `matched` mean 0 and the vector's expected norm. They are drawn from the seed, the
    vector's name and the block's name whenever they are needed."""

    def __init__(self, vector: Vector, root: Chain, seed: int, matched: bool) -> None:
        super().__init__(vector.name, vector.arm, vector.base)
        self.vector, self.root, self.seed, self.matched = vector, root, seed, matched
        self._moments: dict[str, tuple[float, float]] = {}

    @property
    def addend_includes_root(self) -> bool:
        return False

    def touches(self, block: str) -> bool:
        return not self.matched or self.vector.touches(block)

    @property
    def dense(self) -> bool:
        return True

    def addend(self, piece: Piece) -> torch.Tensor:
        """The random elements."""
        return self.difference(piece)

    def difference(self, piece: Piece) -> torch.Tensor:
        """The random elements, fp32, in the piece's buffer."""
        block, start, root, buffer = piece
        if block not in self._moments:
            self._moments[block] = self._moments_of(block)
        block_mean, block_std = self._moments[block]
        normal = drawn(
            start, len(root), lambda at: torch.randn(CHUNK, generator=generator(self.seed, self.name, block, at))
        )
        return buffer.copy_(normal).mul_(block_std).add_(block_mean)

    def _moments_of(self, block: str) -> tuple[float, float]:
        """The mean and the standard deviation of a block's elements."""
        if self.matched:
            return 0.0, float(self.vector.delta(block).square().mean().sqrt())
        std, mean = torch.std_mean(self.root.full(block).float(), correction=0)
        return float(mean), float(std)

    def factors(self, block: str) -> list[Factors]:
        return []

    def delta(self, block: str) -> torch.Tensor:
        root = self.root.full(block).float()
        return self.difference(Piece(block, 0, root, torch.empty_like(root))).view(self.root.blocks.shapes[block])


class Random(NamedTuple):
    """How random vectors are drawn: from a seed, and `matched` to the norms of the vectors that they replace."""

    seed: int
    matched: bool = False


class Pool:
    """The start of a composition and its vectors. All belong to one root model. `start` has the weights to which
    vectors are added, and `root` those of the root model."""

    def __init__(
        self,
        manifests: list[Path],
        arms: Mapping[str, list[Path]],
        bases: Mapping[str, list[Path]] | None = None,
        random: Random | None = None,
    ) -> None:
        """`manifests` is the chain of the start; `arms` has the chain of every vector's arm by the vector's name, and
        `bases` those of the arms that are subtracted in place of the root. `random` replaces the vectors by random
        ones. Raises ImprintError for vectors of another root model, for vectors that are zero and for vectors with NaN
        or Inf."""
        if not arms:
            raise ImprintError("the list of task vectors is empty; write `vectors: [ARM, ...]`")
        for name, chain in arms.items():
            same_root(manifests[0], name, chain[0])
            if len(chain) == 1:
                raise ImprintError(
                    f"task vector '{name}' is zero: the arm has the weights of its root model {chain[0].parent}; "
                    "write an arm that is fitted"
                )
        self.start = Chain("the parent", manifests)
        self.blocks = self.start.blocks
        self.root = self.start if len(manifests) == 1 else Chain("the root model", manifests[:1], self.blocks)
        bases = bases or {}
        for name, chain in bases.items():
            same_root(manifests[0], name, chain[0])
        self.vectors = [self._vector(name, chain, bases.get(name), random) for name, chain in arms.items()]

    @classmethod
    def of(
        cls,
        manifests: list[Path],
        vectors: Sequence[VectorRef],
        arms: Mapping[str, list[Path]],
        random: Random | None = None,
    ) -> Pool:
        """The pool of the vectors that settings name. `arms` has the chains of their arms by the arm's name."""
        bases = {vector.name: arms[vector.against] for vector in vectors if vector.against}
        return cls(manifests, {vector.name: arms[vector.of] for vector in vectors}, bases, random)

    def _vector(self, name: str, chain: list[Path], base: list[Path] | None, random: Random | None) -> Vector:
        subtracted = self.root if base is None else Chain(f"{name}, subtracted", base, self.blocks)
        vector = Vector(name, Chain(name, chain, self.blocks), subtracted)
        for _ in self.norms(vector):  # it raises the errors
            pass
        return vector if random is None else RandomVector(vector, self.root, *random)

    def norms(self, vector: Vector) -> Iterator[tuple[str, float]]:
        """(block, squared size) for each block, in one pass over a vector. The size is zero only if the vector's parts
        are: it adds the squared norm of the difference and, for each adapter, s^2 |A|^2 |B|^2. Raises ImprintError for
        a block with NaN or Inf, and at the end if all blocks are zero."""
        total = 0.0
        for block in self.blocks.shapes:
            square = 0.0
            if vector.dense:
                for piece in pieces(block, self.root):
                    delta = vector.difference(piece)
                    square += float(torch.dot(delta, delta))
            for s, b, a in vector.factors(block):
                # B starts at zero, so the product of the norms is zero for an adapter that has learned nothing.
                square += s**2 * float(a.square().sum()) * float(b.square().sum())
            if not square < float("inf"):
                raise ImprintError(
                    f"task vector '{vector.name}' holds NaN or Inf in block '{block}' of {vector.arm.weights.folder}; "
                    "that fit went wrong: fit the arm again with a smaller learning rate"
                )
            total += square
            yield block, square
        if total == 0:
            raise ImprintError(
                f"task vector '{vector.name}' is zero: its fit left the weights of {vector.base.weights.folder} as "
                "they were; give it more steps or a larger learning rate"
            )


def pieces(block: str, root: Chain, device: torch.device = CPU, span: slice | None = None) -> Iterator[Piece]:
    """The pieces of a block, or of its elements `span`, on `device` and in order. They share one buffer, which stays in
    the cache."""
    span = span or root.blocks.part(block).span
    longest = CHUNK if device.type == "cpu" else GPU_CHUNK
    buffer = torch.empty(min(longest, span.stop - span.start), device=device)
    for start in range(span.start, span.stop, longest):
        place = slice(start, min(start + longest, span.stop))
        elements = root.full(block)[place].to(device, torch.float32)
        yield Piece(block, start, elements, buffer[: len(elements)])


def drawn(start: int, size: int, draw: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """Random numbers for `size` elements of a flat block from `start` on. `draw` draws CHUNK of them, from a position
    that is a multiple of CHUNK. So an element's number depends on its position, and not on which others are asked
    for."""
    first = start - start % CHUNK
    return torch.cat([draw(at) for at in range(first, start + size, CHUNK)])[start - first :][:size]


def generator(*parts: object) -> torch.Generator:
    """A generator of random numbers that depend on `parts` alone, and not on earlier draws."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def same_root(ours: Path, name: str, theirs: Path) -> None:
    """Raise ImprintError if a vector has another root model than the composition. `ours` is the manifest of the
    composition's root model, `theirs` that of the vector's; the error says what differs."""
    first, second = read_manifest(ours), read_manifest(theirs)
    if ours.resolve() == theirs.resolve() or first["fingerprint"] == second["fingerprint"]:
        return
    difference = "the weights"
    if first["template_sha256"] != second["template_sha256"]:
        difference = "the chat template"
    else:
        files = [path.parent / "tokenizer.json" for path in (ours, theirs)]
        if all(file.is_file() for file in files) and file_sha256(files[0]) != file_sha256(files[1]):
            difference = "the tokenizer"
    raise ImprintError(
        f"task vector '{name}' belongs to another root model: {difference} in {theirs.parent} and in {ours.parent} "
        "differ; compose arms of one model"
    )
