"""Task vectors (Ilharco et al., arXiv 2212.04089): what a fit changed, theta_arm - theta_root, block by block.

A block is one named parameter; tied parameters, such as an embedding that is the output layer too, are one block. All
pairing is by name. A vector holds no difference in memory: a full fit's is the arm's tensor less the root's, both read
from disk when they are asked for, in fp32; an adapter's stays in its factors, s * B A. A fit on top of a full fit has
both. Imports torch: only fits import this module.

    pool = Pool([root, self_prompt manifests], {"self_prompt": [...], "ppe": [...]})
    pool.vectors[0].delta("model.norm.weight")        # fp32, the block's shape
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imprint.artifacts import Factors
from imprint.models import chains
from imprint.models.tensor_files import TensorFolder
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, read_manifest

CHUNK = 1 << 19
"""Elements taken at a time on a CPU: a few buffers of this size stay in its cache, so each tensor is read from memory
once and differences are never written there."""
GPU_CHUNK = 1 << 26
"""The same on a GPU, where it is the number of calls that costs. A multiple of CHUNK."""
GPU_SHARE = 0.5
"""Of a GPU's free memory, what vectors may take there, so that a step streams only those that it has no room for."""
CPU = torch.device("cpu")


class Blocks:
    """The parameters of an architecture: shapes by name, and for tied ones the name that they share."""

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

    def files(self, weights: TensorFolder, where: str) -> dict[str, str]:
        """Block -> its name in a folder of weights. Raises when a block is missing or of another shape."""
        stored = {self.alias.get(name, name): name for name in weights.names if name in self.alias}
        stored |= {name: name for name in weights.names if name in self.shapes}
        for block, shape in self.shapes.items():
            if block not in stored:
                raise ImprintError(f"{where}: {weights.folder} has no block '{block}', which its root model has")
            if (other := list(weights.shape(stored[block]))) != list(shape):
                raise ImprintError(
                    f"{where}: block '{block}' is {other} in {weights.folder}, but {list(shape)} in its root model"
                )
        return stored


class Chain:
    """The weights that a chain of manifests names, read block by block: a full set, and adapters on top of it."""

    def __init__(self, name: str, manifests: list[Path], blocks: Blocks | None = None) -> None:
        links = chains.links(manifests)
        self.name = name
        self.root = links.root
        self.blocks = blocks or Blocks(links.root)
        self.weights = TensorFolder(links.weights)
        self.own = links.weights != links.root
        self._files = self.blocks.files(self.weights, f"'{name}'")
        self._kept: dict[str, torch.Tensor] = {}
        self._factors: dict[str, list[Factors]] = {}
        for kind, folder in links.changes:
            for block, factors in plugins.load("artifacts", kind).factors(folder, self.blocks, name):
                self._factors.setdefault(block, []).append(factors)

    def full(self, block: str) -> torch.Tensor:
        """The block without adapters: a flat view of the file."""
        return self.weights.read(self._files[block]).view(-1)

    def keep(self, device: torch.device, room: float) -> float:
        """Hold blocks without adapters on `device`, as many as `room` bytes take; returns the bytes left."""
        for block in self.blocks.shapes:
            if block not in self._kept and (tensor := self.full(block)).nbytes <= room:
                self._kept[block] = tensor.to(device)
                room -= tensor.nbytes
        return room

    def on(self, block: str, device: torch.device) -> torch.Tensor:
        """Like `full`, and where it is kept on `device`, from there."""
        kept = self._kept.get(block)
        return kept if kept is not None and kept.device == device else self.full(block)

    def factors(self, block: str) -> list[Factors]:
        return self._factors.get(block, [])

    def read(self, block: str, device: torch.device = CPU) -> torch.Tensor:
        """The block, flat: what `on` gives where no adapter changes it, else fp32 of its own on `device`."""
        plain, parts = self.on(block, device), self.factors(block)
        if not parts:
            return plain
        merged = plain.to(device, torch.float32, copy=True).view(self.blocks.shapes[block])
        for factors in parts:
            factors.on(device).add_to(merged)
        return merged.view(-1)


class Piece(NamedTuple):
    """A piece of a block: where it begins, the root's elements of it, fp32, and room for as many, which all vectors and
    pieces share."""

    block: str
    start: int
    base: torch.Tensor
    room: torch.Tensor

    @property
    def span(self) -> slice:
        """Its place in the flat block."""
        return slice(self.start, self.start + len(self.base))


class Vector:
    """One task vector: what `arm` has less what `root` has. In a block it is a difference of elements, which is read
    piece by piece (`dense`), or factors, or both."""

    stored = True
    """Whether `elements` are the arm's own, so that they hold the root's too."""

    def __init__(self, arm: Chain, root: Chain) -> None:
        self.name, self.arm, self.root = arm.name, arm, root

    def touches(self, block: str) -> bool:
        """Whether the vector has anything in a block."""
        return self.arm.own or bool(self.arm.factors(block))

    @property
    def dense(self) -> bool:
        """Whether a full fit is part of it."""
        return self.arm.own

    def elements(self, piece: Piece) -> torch.Tensor:
        """The arm's elements of a piece, where its base is, without what the arm's adapters add."""
        return self.arm.on(piece.block, piece.base.device)[piece.span].to(piece.base.device)

    def difference(self, piece: Piece) -> torch.Tensor:
        """The arm's elements less the root's, fp32, written to the piece's room."""
        return torch.sub(self.elements(piece), piece.base, out=piece.room)

    def factors(self, block: str) -> list[Factors]:
        """What the arm's adapters add to a block."""
        return self.arm.factors(block)

    def delta(self, block: str) -> torch.Tensor:
        """The whole of a block, fp32, multiplied out: for rules that look at single elements."""
        shape = self.root.blocks.shapes[block]
        if self.dense:
            whole = self.arm.full(block).float() - self.root.full(block).float()
        else:
            whole = torch.zeros(shape).view(-1)
        for factors in self.factors(block):
            factors.add_to(whole.view(shape))
        return whole.view(shape)


class RandomVector(Vector):
    """The paper's control: Gaussian blocks with the mean and standard deviation of the root's, drawn from the vector's
    name and the block's, so that nothing is stored."""

    stored = False

    def __init__(self, arm: Chain, root: Chain, seed: int) -> None:
        super().__init__(arm, root)
        self.seed = seed
        self._moments: dict[str, tuple[float, float]] = {}

    def touches(self, block: str) -> bool:
        return True

    @property
    def dense(self) -> bool:
        return True

    def elements(self, piece: Piece) -> torch.Tensor:
        """The difference itself."""
        return self.difference(piece)

    def difference(self, piece: Piece) -> torch.Tensor:
        block, start, base, room = piece
        if block not in self._moments:
            spread, middle = torch.std_mean(self.root.full(block).float(), correction=0)
            self._moments[block] = float(middle), float(spread)
        mean, std = self._moments[block]
        drawn = torch.cat([
            torch.randn(CHUNK, generator=generator(self.seed, self.name, block, at))
            for at in range(start, start + len(base), CHUNK)
        ])  # fmt: skip
        return room.copy_(drawn[: len(base)]).mul_(std).add_(mean)

    def factors(self, block: str) -> list[Factors]:
        return []

    def delta(self, block: str) -> torch.Tensor:
        base = self.root.full(block).float()
        return self.difference(Piece(block, 0, base, torch.empty_like(base))).view(self.root.blocks.shapes[block])


class Pool:
    """Where a composition starts and the vectors it is made of, all of one root model."""

    def __init__(self, manifests: list[Path], arms: Mapping[str, list[Path]], random: int | None = None) -> None:
        """`random`: a seed, to put random vectors in the arms' place. Raises for anything that could not be added."""
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
        self.vectors = [self._vector(name, chain, random) for name, chain in arms.items()]

    def _vector(self, name: str, manifests: list[Path], random: int | None) -> Vector:
        arm = Chain(name, manifests, self.blocks)
        vector = Vector(arm, self.root)
        for _ in self.norms(vector):
            pass
        return vector if random is None else RandomVector(arm, self.root, random)

    def keep(self, device: torch.device) -> None:
        """Hold on a GPU what GPU_SHARE of its free memory takes of the root's and the vectors' weights."""
        room = GPU_SHARE * torch.cuda.mem_get_info(device)[0]
        for chain in (self.root, self.start, *(vector.arm for vector in self.vectors)):
            if chain is self.root or chain.own:
                room = chain.keep(device, room)

    def norms(self, vector: Vector) -> Iterator[tuple[str, float]]:
        """Blocks with the squared norm of their dense part or of their factors, one pass over a vector. Raises
        ImprintError where it holds NaN or Inf, and at the end if all of it is zero."""
        total = 0.0
        for block in self.blocks.shapes:
            square = 0.0
            if vector.dense:
                for piece in pieces(block, self.root):
                    delta = vector.difference(piece)
                    square += float(torch.dot(delta, delta))
            for s, b, a in vector.factors(block):
                # B starts at zero: an adapter that learned nothing is zero.
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
                f"task vector '{vector.name}' is zero: its fit left the weights of {self.root.weights.folder} as they "
                "were; give it more steps or a larger learning rate"
            )


def pieces(block: str, root: Chain, device: torch.device = CPU) -> Iterator[Piece]:
    """A block, piece by piece, on `device`. The pieces share one room, so that it stays in the cache and memory is
    flat."""
    base = root.on(block, device)
    room = torch.empty(min(len(base), CHUNK if device.type == "cpu" else GPU_CHUNK), device=device)
    for start in range(0, len(base), len(room)):
        part = base[start : start + len(room)].to(device, torch.float32)
        yield Piece(block, start, part, room[: len(part)])


def generator(*parts: object) -> torch.Generator:
    """Random numbers that belong to their names, whatever is drawn before."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def same_root(ours: Path, name: str, theirs: Path) -> None:
    """Raise unless a vector's root model is the composition's, saying what differs; both are manifests."""
    first, second = read_manifest(ours), read_manifest(theirs)
    if ours.resolve() == theirs.resolve() or first["fingerprint"] == second["fingerprint"]:
        return
    what = "the weights"
    if first["template_sha256"] != second["template_sha256"]:
        what = "the chat template"
    else:
        files = [path.parent / "tokenizer.json" for path in (ours, theirs)]
        if all(file.is_file() for file in files) and file_sha256(files[0]) != file_sha256(files[1]):
            what = "the tokenizer"
    raise ImprintError(
        f"task vector '{name}' belongs to another root model: {what} in {theirs.parent} and in {ours.parent} differ; "
        "compose arms of one model"
    )
