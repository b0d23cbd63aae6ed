"""Jacobians of face networks at noisy test faces: `CELEBA_ROOT=... python benchmarks/shrinkage.py
[SECTION ...]`.

spectrum: all eigenvalues of the network of the most faces at sigma = .15, symmetry, the
coefficients of the clean face. spectrum-80: the leading eigenvalues of the 80 x 80 network, to set
beside those of Kadkhodaie et al. (2024, Fig. 3).
errors: squared error, Stein's estimate of it, and sigma^2 tr J, against the noise level and the
number of faces.
peers: symmetry of networks that others have released (needs PEERS_ROOT).
bases: which eigenvectors networks share, between networks, levels and faces, with Wiener's filter
as control.

Each section is written to src/helpers/recorded/shrinkage.json when it is done; *Shrinkage in an
adaptive basis* draws from it. No picture leaves this file.
"""

import itertools
import os
from pathlib import Path

import record
import torch
from record import SEED, noisy, rounded
from scipy.stats import spearmanr

from helpers import models
from helpers.data import load
from helpers.denoisers import Denoiser, LinearDenoiser
from helpers.jacobian import Eigen, Jacobian, asymmetry, eigen, svd
from helpers.released import load_peer
from helpers.systems.kadkhodaie import eigenbasis

COUNTS = (1, 10, 100, 1000, 9442)
HEADLINE = list(range(5, 246, 12))  # the eigenvalues that the paper's figure names
LEVELS, SIGMA = (0.05, 0.15, 0.5), 0.15
TOP = 20


def spectrum(faces: int = 2) -> dict:
    """Full matrices at 40 x 40. What jumps from k to k + 1 is a mean over those within a tenth of
    k."""
    network, x = models.load("faces-n9442-a"), load("celeba", "test", faces, 40).images
    y, found, singles = noisy(x, SIGMA), [], []
    shown = torch.unique(
        torch.cat([torch.logspace(0, 3.2, 100).round().int(), torch.tensor(HEADLINE)])
    ).clamp(max=1600)
    for i in range(faces):
        jacobian = Jacobian(network, y[i : i + 1], SIGMA)
        values, vectors, _ = eigen(jacobian)
        left, s, right = svd(jacobian)
        coefficients, rate = (vectors * x[i]).flatten(1).sum(1).abs(), eigenbasis.frequency(vectors)
        edges = eigenbasis.edges(x[i])
        along = {"values": values, "singular": s}
        smooth = {
            "coefficients": coefficients,
            "aligned": (left * right).flatten(1).sum(1),
            "frequency": rate,
            "edges": eigenbasis.energy_on(vectors, edges) / edges.double().mean(),
        }
        row = {k: v[shown - 1] for k, v in along.items()}
        row |= {
            k: torch.stack([v[(k - 1) * 10 // 11 : k * 11 // 10].mean() for k in shown])
            for k, v in smooth.items()
        }
        found.append(row)
        singles.append({
            "asymmetry": asymmetry(jacobian),
            "asymmetry of ten": eigenbasis.asymmetry_on(jacobian, vectors[:10]),
            "estimated asymmetry": eigenbasis.estimated_asymmetry(jacobian, 8),
            "share above .1": float((values > 0.1).double().mean()),
            "negative": float((values < 0).double().mean()),
            "above 1": int((values > 1).sum()),
            "largest coefficient at": int(coefficients.argmax()) + 1,
            "rank correlation of frequency": float(spearmanr(range(len(rate)), rate)[0]),
            "right vectors": eigenbasis.overlap(vectors[:10], right[:10]),
        })  # fmt: skip
    return {
        "model": "faces-n9442-a",
        "sigma": SIGMA,
        "faces": faces,
        "seed": SEED,
        "k": shown.tolist(),
        **{k: rounded(torch.stack([row[k] for row in found]).mean(0)) for k in found[0]},
        "each": {k: [round(row[k], 4) for row in singles] for k in singles[0]},
    }


def spectrum_80(faces: int = 1, basis: int = 512) -> dict:
    """By Krylov: the residuals say how far the last ones can be off."""
    network, x = models.load("faces80"), load("celeba", "test", faces, 80).images
    y = noisy(x, SIGMA)
    found = [
        eigen(Jacobian(network, y[i : i + 1], SIGMA), HEADLINE[-1], basis) for i in range(faces)
    ]
    return {
        "model": "faces80",
        "sigma": SIGMA,
        "faces": faces,
        "seed": SEED,
        "headline k": HEADLINE,
        "values": rounded(torch.stack([f.values for f in found]).mean(0)),
        "residuals": rounded(
            torch.stack([f.residuals for f in found]).amax(0)[[k - 1 for k in HEADLINE]]
        ),
    }


def errors(faces: int = 48) -> dict:
    """Mean over test faces, in units of one pixel, and the standard errors of what compares two."""
    levels = [round(10 ** (k / 4 - 2), 4) for k in range(8)]
    x, rows = load("celeba", "test", faces, 40).images, {}
    d = x[0].numel()
    for n in COUNTS:
        network, row = models.load(f"faces-n{n}-a"), []
        for sigma in levels:
            y = noisy(x, sigma)
            with torch.no_grad():
                x_hat = network(y, sigma)
            traces = eigenbasis.trace(network, y, sigma, probes=2)
            true = (x_hat - x).flatten(1).double().square().sum(1)
            off = (eigenbasis.sure(x_hat, y, sigma, traces) - true) / d
            row.append({
                "trace": float(traces.mean()), "error": float(true.mean() / d), "sure": float((off + true / d).mean()),
                "by trace": float(sigma**2 * traces.mean() / d), "standard error": float(off.std() / faces**0.5),
            })  # fmt: skip
        rows[str(n)] = {k: [float(f"{r[k]:.5g}") for r in row] for k in row[0]}
    return {
        "models": [f"faces-n{n}-a" for n in COUNTS],
        "faces": faces,
        "seed": SEED,
        "sigmas": levels,
        "rows": rows,
    }


def machines(points: torch.Tensor) -> dict[str, Denoiser]:
    """Networks that differ in their number of faces, then in their architecture; Wiener's filter of
    1000 faces."""
    found = {f"N = {n}": models.load(f"faces-n{n}-a") for n in COUNTS}
    there = [
        name
        for name in ("base", "norm-bias-free", "pool-none", "chain")
        if f"faces-{name}" in models.manifest()
    ]
    found |= {name: models.load(f"faces-{name}") for name in there}
    return found | {"Wiener": LinearDenoiser.from_points(points)}


def bases(faces: int = 2) -> dict:
    """Top eigenvectors of every machine at the same noisy faces."""
    x, points = load("celeba", "test", faces, 40).images, load("celeba", n=1000, size=40).images
    compared = machines(points)
    vectors: dict[tuple[str, int, int], torch.Tensor] = {}
    # of the same random vectors under each Jacobian
    images: dict[tuple[str, int, int], torch.Tensor] = {}
    measured: dict[str, dict[str, torch.Tensor]] = {name: {} for name in compared}
    for name, machine in compared.items():
        table: dict[str, list] = {}
        for j, sigma in enumerate(LEVELS):
            y = noisy(x, sigma)
            for i in range(faces):
                jacobian = Jacobian(machine, y[i : i + 1], sigma)
                values, e, residuals = leading(jacobian)
                vectors[name, i, j] = e
                images[name, i, j] = jacobian.matvec(
                    torch.randn(16, 40, 40, generator=torch.Generator().manual_seed(1))
                )
                found = {"residuals": residuals} | portrait(
                    jacobian, values, e, x[i], x[(i + 1) % faces]
                )
                for k, v in found.items():
                    table.setdefault(k, []).append(torch.as_tensor(v, dtype=torch.float64))
        measured[name] = {
            k: torch.stack(v).view(len(LEVELS), faces, -1).mean(1).squeeze(-1)
            for k, v in table.items()
        }
    return {
        "machines": list(compared), "levels": list(LEVELS), "faces": faces, "top": TOP, "seed": SEED,
        "measured": {name: {k: rounded(v) for k, v in table.items()} for name, table in measured.items()},
        **shared(vectors, list(compared), faces), "alike": alike(images, list(compared), faces),
        "memory": memory(compared, x, points[0]),
    }  # fmt: skip


def leading(jacobian: Jacobian) -> Eigen:
    """The top eigenpairs. Those of Wiener's filter are known, and too close to 1 for a Krylov space
    to part them."""
    machine = jacobian.denoiser
    if not isinstance(machine, LinearDenoiser):
        return eigen(jacobian, TOP, basis=8 * TOP)
    values, vectors = machine.variances[:TOP], machine.axes.T[:TOP].view(TOP, *jacobian.y.shape[1:])
    return Eigen(values / (values + jacobian.sigma**2), vectors, torch.zeros(TOP))


def portrait(
    jacobian: Jacobian, values: torch.Tensor, e: torch.Tensor, x: torch.Tensor, other: torch.Tensor
) -> dict:
    """Measures of one machine at one noisy face; `other` is the face whose edges are the control."""
    here, there = eigenbasis.edges(x), eigenbasis.edges(other)
    coefficients = (e * x).flatten(1).sum(1)
    return {
        "values": values,
        "frequency": eigenbasis.frequency(e),
        "own edges": eigenbasis.energy_on(e, here).mean() / here.double().mean(),
        "edges of another": eigenbasis.energy_on(e, there).mean() / there.double().mean(),
        "asymmetry": eigenbasis.estimated_asymmetry(jacobian, 8),
        "asymmetry of ten": eigenbasis.asymmetry_on(jacobian, e[:10]),
        "captured": coefficients.square().sum() / x.square().sum(),
    }


def shared(vectors: dict, names: list[str], faces: int) -> dict:
    """Overlaps of top spaces, each a mean over what is not named: matrices of machines, and two
    controls for each."""
    levels = range(len(LEVELS))

    def mean(pairs: list) -> float:
        return round(
            sum(eigenbasis.overlap(vectors[a], vectors[b]) for a, b in pairs) / len(pairs), 4
        )

    between = [
        [[mean([((a, i, j), (b, i, j)) for i in range(faces)]) for b in names] for a in names]
        for j in levels
    ]
    between_levels = {
        a: [mean([((a, i, j), (a, i, j + 1)) for i in range(faces)]) for j in levels[:-1]]
        for a in names
    }
    between_faces = {
        a: [mean([((a, i, j), (a, (i + 1) % faces, j)) for i in range(faces)]) for j in levels]
        for a in names
    }
    return {
        "between machines": between,
        "between levels": between_levels,
        "between faces": between_faces,
    }


def alike(images: dict, names: list[str], faces: int) -> list:
    """Cosine of two Jacobians as vectors, <J, K> / (|J| |K|), from their products with random
    vectors, per level."""

    def mean(a: str, b: str, j: int) -> float:
        pairs = [(images[a, i, j].flatten(), images[b, i, j].flatten()) for i in range(faces)]
        return round(sum(float(torch.cosine_similarity(u, v, dim=0)) for u, v in pairs) / faces, 4)

    return [[[mean(a, b, j) for b in names] for a in names] for j in range(len(LEVELS))]


def memory(compared: dict[str, Denoiser], x: torch.Tensor, face: torch.Tensor) -> dict:
    """Squared cosines of the training face of N = 1 with what that network, and another, answers
    and listens to.

    J = sum_i s_i u_i v_i^T: the leading u is the picture that it answers, the leading v what it
    looks for in y.
    """
    found: dict[str, list] = {}
    for name in ("N = 1", "N = 9442"):
        rows = []
        for sigma in LEVELS:
            jacobian = Jacobian(compared[name], noisy(x, sigma)[:1], sigma)
            v = jacobian.y
            # the power method: the leading singular value stands far above the second
            for _ in range(12):
                u = jacobian.matvec(v)
                pulled = jacobian.adjoint(u / u.norm())
                v = pulled / pulled.norm()
            u = jacobian.matvec(v)
            cosines = [
                float(torch.cosine_similarity(t.flatten(), face.flatten(), dim=0) ** 2)
                for t in (u, v)
            ]
            rows.append(
                [
                    float(u.norm()),
                    *cosines,
                    float((jacobian.adjoint(u / u.norm()) - u.norm() * v).norm()),
                ]
            )
        found[name] = rounded(torch.tensor(rows))
    kept = {
        n: [
            float(eigenbasis.trace(compared[f"N = {n}"], noisy(face[None], sigma), sigma, 8))
            for sigma in LEVELS
        ]
        for n in COUNTS
    }
    return {
        "columns": ["singular value", "answers", "listens to", "residual"],
        **found,
        "trace at a training face": {str(n): [round(v, 2) for v in row] for n, row in kept.items()},
    }


def peers(faces: int = 2, probes: int = 8) -> dict:
    """Asymmetry of the Jacobians of networks that others have released (PEERS_ROOT), of ours of as
    many pixels, and of the optimum for a Gaussian, which has none."""
    x = load("celeba", "test", faces, 80).images
    training = load("celeba", "train", 2000, 80).images
    rows = {
        path.stem: load_peer(path) for path in sorted(Path(os.environ["PEERS_ROOT"]).glob("*.npz"))
    }
    rows |= {"faces80": models.load("faces80"), "Wiener": LinearDenoiser.from_points(training)}
    found: dict = {name: {"all": [], "ten": []} for name in rows}
    for (name, network), sigma in itertools.product(rows.items(), LEVELS):
        y, each = noisy(x, sigma), []
        for i in range(faces):
            jacobian = Jacobian(network, y[i : i + 1], sigma)
            ten = eigen(jacobian, 10).vectors
            asymmetries = (
                eigenbasis.estimated_asymmetry(jacobian, probes),
                eigenbasis.asymmetry_along(jacobian, ten),
            )
            each.append(asymmetries)
        for key, values in zip(("all", "ten"), zip(*each, strict=True), strict=True):
            found[name][key].append(rounded(values))
        print(name, sigma, each, flush=True)
    return {"levels": list(LEVELS), "faces": faces, "probes": probes, "size": 80, "measured": found}


SECTIONS = {
    "spectrum": spectrum,
    "spectrum-80": spectrum_80,
    "errors": errors,
    "bases": bases,
    "peers": peers,
}

if __name__ == "__main__":
    record.main(__doc__, "shrinkage", SECTIONS)
