"""The papers' other networks and foreign weights: sizes, receptive fields, formulas, damaged files,
PSNR of peers."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import noise, settled
from torch.nn.functional import batch_norm, conv2d, leaky_relu, linear, pad

from helpers import data
from helpers.denoisers.networks.cnn import CNN
from helpers.denoisers.networks.image_mlp import ImageMLP
from helpers.denoisers.networks.unet import OPTIONS, UNet
from helpers.metrics import psnr
from helpers.released import DilatedUNet, load_peer, load_released

PADDINGS = {"zeros": "constant", "circular": "circular", "reflect": "reflect"}


def small(**options) -> CNN:
    return settled(CNN(**{"depth": 5, "channels": 6, **options}))


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# The chain of convolutions ------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "parameters"), [(21, 702_784), (20, 665_856)])
def test_sizes_of_bf_cnn(depth, parameters):
    net = CNN(depth)
    assert count(net) == parameters and net.receptive_field == 2 * depth + 1


def seen(net: torch.nn.Module) -> torch.Tensor:
    """The pixels of y on which pixel (32, 32) of D(y) depends."""
    net, y = net.double(), torch.ones(1, 64, 64, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(0.1)  # of one sign, so that nothing cancels and no ReLU closes
    net(y, 1.0)[0, 32, 32].backward()
    return y.grad[0] != 0


@pytest.mark.parametrize("width", [1, 3, 5, 9, 13, 15, 23, 43])
def test_the_receptive_field_is_what_a_pixel_depends_on(width):
    net = CNN(channels=2, receptive_field=width, normalisation="none")
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[32 - width // 2 : 33 + width // 2, 32 - width // 2 : 33 + width // 2] = True
    assert torch.equal(seen(net), inside) and net.receptive_field == width
    assert len(net.conv_layers) == 21


@pytest.mark.parametrize("padding", OPTIONS["padding"])
@pytest.mark.parametrize(
    "options", [{}, {"first_relu": True}, {"normalisation": "batch", "bias": True}]
)
def test_cnn_is_convolution_normalisation_relu(padding, options):
    net, y = small(padding=padding, receptive_field=7, **options), noise(2, 1, 9, 8)
    z = y
    for i, conv in enumerate(net.conv_layers):
        reach = conv.weight.shape[-1] // 2
        z = conv2d(pad(z, 4 * [reach], PADDINGS[padding]), conv.weight, conv.bias)
        if 0 < i < 4:
            norm = net.BN_layers[i - 1]
            if options.get("bias"):
                z = batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            else:
                z = z * norm.gammas / norm.running_sd
        if 0 < i < 4 or (i == 0 and net.first_relu):
            z = z.clamp(min=0)
    torch.testing.assert_close(net(y, 1.0), y - z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", OPTIONS["padding"])
@pytest.mark.parametrize("normalisation", ["bias-free", "none"])
def test_bias_free_is_homogeneous(padding, normalisation):
    net, y = small(padding=padding, normalisation=normalisation), noise(3, 1, 12, 12)
    for c in (0.01, 3.0, 255.0):
        assert (net(c * y, 1.0) - c * net(y, 1.0)).abs().max() < 1e-5 * (
            c * net(y, 1.0)
        ).abs().max()


@pytest.mark.parametrize("options", [{"bias": True}, {"normalisation": "batch"}])
def test_a_bias_breaks_homogeneity(options):
    net, y = small(**options), noise(3, 1, 12, 12)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.fill_(0.1)
    assert (net(3 * y, 1.0) - 3 * net(y, 1.0)).abs().max() > 1e-2


def test_only_circular_padding_commutes_with_every_shift():
    y = noise(2, 1, 11, 13)
    error = {}
    for padding in OPTIONS["padding"]:
        net = small(padding=padding)
        error[padding] = (
            (net(y.roll((3, -5), (2, 3)), 1.0) - net(y, 1.0).roll((3, -5), (2, 3))).abs().max()
        )
    assert error["circular"] < 1e-5 and min(error["zeros"], error["reflect"]) > 1e-3


@pytest.mark.parametrize("normalisation", OPTIONS["normalisation"])
def test_rows_do_not_see_each_other_in_evaluation_mode(normalisation):
    net, y = small(normalisation=normalisation), noise(4, 1, 12, 12)
    one_by_one = torch.cat([net(row[None], 1.0) for row in y])
    torch.testing.assert_close(
        net(y, torch.tensor([0.1, 0.5, 1.0, 2.0])), one_by_one, rtol=1e-5, atol=1e-5
    )


def test_gray_images_need_no_channel_axis_and_dtype_is_kept():
    net, y = small(), noise(3, 8, 8)
    torch.testing.assert_close(net(y, 1.0), net(y[:, None], 1.0)[:, 0])
    assert net(y.double(), 1.0).dtype == torch.float64
    assert CNN(3, channels=4, image_channels=3)(noise(2, 3, 7, 5), 1.0).shape == (2, 3, 7, 5)


@pytest.mark.parametrize(
    "build", [lambda s: CNN(4, 5, receptive_field=7, seed=s), lambda s: ImageMLP(4, 1, 9, seed=s)]
)
def test_seed_and_arguments_build_the_network_again(build):
    before = torch.get_rng_state()
    net, other = build(3), build(4)
    assert torch.equal(before, torch.get_rng_state())
    again = type(net)(**net.arguments)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(net.parameters()), next(other.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "depth is 1: take at least 2"),
        ({"channels": 0}, "channels is 0"),
        ({"image_channels": 2}, "image_channels is 2: choose 1 for gray or 3 for colour"),
        ({"receptive_field": 6}, "receptive_field is 6: choose an odd number from 1 to 43"),
        ({"receptive_field": 45}, "receptive_field is 45: .* or more depth"),
        ({"receptive_field": -1}, "receptive_field is -1"),
        (
            {"normalisation": "layer"},
            "normalisation is 'layer': choose one of bias-free, batch, none",
        ),
        ({"padding": "same"}, "padding is 'same': choose one of zeros, circular, reflect"),
    ],
)
def test_bad_options_of_the_cnn(options, message):
    with pytest.raises(ValueError, match=message):
        CNN(**options)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (
            {},
            (2, 3, 8, 8),
            r"y has shape \(2, 3, 8, 8\): this network takes \(batch, 1, H, W\) or \(batch, H, W\)",
        ),
        ({"image_channels": 3}, (2, 8, 8), r"takes \(batch, 3, H, W\)$"),
        ({"padding": "reflect"}, (2, 8, 1), "reflect padding needs at least 2 x 2"),
        ({}, (2, 0, 8), "zeros padding needs at least 1 x 1"),
    ],
)
def test_bad_images(options, shape, message):
    with pytest.raises(ValueError, match=message):
        CNN(3, channels=4, **options)(torch.zeros(shape), 1.0)


# The fully connected network ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "parameters"), [(50, 1_261_538), (200, 5_249_288), (500, 14_304_788)]
)
def test_sizes_of_the_image_mlp(width, parameters):
    """2 * 12288 H + H + 12288 at the ends and 8 (H^2 + H) between them."""
    assert count(ImageMLP(width=width)) == parameters


def test_image_mlp_is_their_network_at_their_noise_level():
    """x_t = sqrt(1 - t) x_0 + sqrt(t) n on [-1, 1] and y = x + sigma n on [0, 1], with the same n,
    give one image."""
    net, t = ImageMLP(4, width=10).double(), 0.3
    x_0, n = 2 * torch.rand(5, 3, 4, 4, dtype=torch.float64) - 1, noise(5, 3, 4, 4).double()
    z = ((1 - t) ** 0.5 * x_0 + t**0.5 * n).flatten(1)
    weights = list(net.parameters())
    for i in range(9):
        z = leaky_relu(linear(z, *weights[2 * i : 2 * i + 2]), 0.2 if i < 8 else 0.0)
    theirs = torch.tanh(linear(z, *weights[18:])).view_as(x_0)
    sigma = 0.5 * (t / (1 - t)) ** 0.5
    torch.testing.assert_close(2 * net((1 + x_0) / 2 + sigma * n, sigma) - 1, theirs)


@pytest.mark.theorem("prop-width")
def test_image_mlp_has_an_image_of_as_many_dimensions_as_its_width():
    net = ImageMLP(6, 1, width=5, depth=1).double()
    x_hat = net(noise(300, 6, 6).double(), 0.3)
    assert 0 < x_hat.min() and x_hat.max() < 1
    values = torch.linalg.svdvals(torch.atanh(2 * x_hat.flatten(1) - 1) - net.decoder[0].bias)
    assert values[5] < 1e-10 * values[0] < values[1]


@pytest.mark.parametrize(
    ("image_channels", "want"), [(1, r"\(batch, 4, 4\)"), (3, r"\(batch, 3, 4, 4\)")]
)
def test_image_mlp_takes_one_size(image_channels, want):
    with pytest.raises(ValueError, match=f"this denoiser takes {want}"):
        ImageMLP(4, image_channels, width=8)(torch.zeros(2, 3, 5, 4), 1.0)


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"width": 0}, {"depth": 0}, {"image_channels": 2}]
)
def test_bad_options_of_the_image_mlp(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ImageMLP(**{"size": 4, "width": 4, **options})


# Weights of others --------------------------------------------------------------------------------


NETWORKS = {
    "UNet": lambda: settled(UNet(2, channels=4, image_channels=3)),
    "BF-CNN": lambda: small(receptive_field=7),
    "UNet of Mohan et al.": DilatedUNet,
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", NETWORKS)
def test_files_in_the_layout_of_their_authors_load(name, prefix, tmp_path):
    net = NETWORKS[name]()
    state = {prefix + k: v for k, v in net.state_dict().items()}
    torch.save(state, tmp_path / "model.pt")
    np.savez(tmp_path / "model.npz", **{k: v.numpy() for k, v in state.items()})
    y = noise(2, getattr(net, "image_channels", 1), 12, 12)
    for again in (load_released(tmp_path / "model.pt"), load_peer(tmp_path / "model.npz")):
        assert type(again) is type(net) and not again.training
        assert torch.equal(again(y, 0.5), net(y, 0.5))


def test_a_released_file_is_read_again_where_its_copy_is_damaged(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    net, y = small(receptive_field=7), noise(2, 1, 12, 12)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    want = load_released(tmp_path / "model.pt")(y, 0.5)
    (copy,) = (tmp_path / "creative-denoiser/released").iterdir()
    whole = copy.read_bytes()
    copy.write_bytes(whole[:100])
    assert torch.equal(load_released(tmp_path / "model.pt")(y, 0.5), want)
    assert copy.read_bytes() == whole


def test_the_released_unet_has_the_size_of_the_paper(tmp_path):
    torch.save(UNet().state_dict(), tmp_path / "model.pt")
    assert count(load_released(tmp_path / "model.pt")) == 7_659_264


def test_the_unet_of_mohan_et_al_pads_odd_sizes_and_is_homogeneous():
    net, y = DilatedUNet(), noise(2, 13, 10)
    torch.testing.assert_close(net(y, 1.0), net(pad(y, (0, 0, 0, 1)), 1.0)[:, :13])
    torch.testing.assert_close(net(3 * y, 1.0), 3 * net(y, 1.0))


def test_the_unet_of_mohan_et_al_sees_45_pixels():
    """At half resolution 5 pixels, 1 + 2 + 4 more on each side; 2 i - 1 to 2 i + 1 of each of
    those; 1 + 2 more."""
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[10:55, 10:55] = True
    assert torch.equal(seen(DilatedUNet()), inside)


class Evil:
    """Unpickling it leaves a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_damaged_and_foreign_checkpoints(tmp_path):
    path, trace, state = tmp_path / "model.pt", tmp_path / "trace", UNet(1, channels=4).state_dict()
    with pytest.raises(ValueError, match=r"model\.pt is missing: download it"):
        load_released(path)
    torch.save(state, path)
    whole = path.read_bytes()
    evil = pickle.dumps({"encoder.0.0.weight": Evil(trace)}, protocol=2)
    at = whole.index(state["mid_block.3.weight"].numpy().tobytes())
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for wrong in (
        b"",
        b"<html>not found</html>",
        whole[:-100],
        whole[: len(whole) // 2],
        flipped,
        evil,
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"model\.pt is not a whole file of weights"):
            load_released(path)
    for content in (
        {"encoder.0.0.weight": Evil(trace)},
        {"state_dict": state, "epoch": 3},
        [1.0],
        UNet(1, channels=4),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"model\.pt is not a whole file of weights"):
            load_released(path)
    assert not trace.exists() and pickle.loads(evil) and trace.exists()
    less = {k: v for k, v in state.items() if "mid_block" not in k}
    wider = {**state, "mid_block.0.weight": torch.zeros(8, 5, 3, 3)}
    other = {f"net.{k}": v for k, v in state.items()}
    more = {**state, "head.weight": torch.zeros(1)}
    for content in ({}, less, wider, other, more, torch.nn.Linear(2, 2).state_dict()):
        torch.save(content, path)
        with pytest.raises(
            ValueError, match=r"model\.pt holds another network .*: take one of their checkpoints"
        ):
            load_released(path)
    torch.save({**state, "mid_block.0.weight": state["mid_block.0.weight"] * float("nan")}, path)
    with pytest.raises(ValueError, match=r"model\.pt holds NaN or infinity"):
        load_released(path)


def test_damaged_and_foreign_arrays(tmp_path):
    path, trace, state = tmp_path / "peer.npz", tmp_path / "trace", CNN(5, 4).state_dict()
    with pytest.raises(ValueError, match=r"peer\.npz is missing"):
        load_peer(path)
    np.savez(path, **state)
    whole = path.read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]
    for wrong in (b"", b"PK", whole[:-100], flipped):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"peer\.npz is not a whole file of weights"):
            load_peer(path)
    np.savez(path, **state, more=np.array([Evil(trace)], dtype=object))
    with pytest.raises(ValueError, match=r"peer\.npz is not a whole file of weights"):
        load_peer(path)
    assert not trace.exists()
    # even, not 3x3, a channel too many
    for layer, shape in (
        (1, (4, 4, 2, 2)),
        (0, (4, 1, 1, 1)),
        (2, (4, 5, 3, 3)),
    ):
        np.savez(path, **{**state, f"conv_layers.{layer}.weight": np.zeros(shape, np.float32)})
        with pytest.raises(ValueError, match=r"peer\.npz holds another network"):
            load_peer(path)


PEERS = {  # dB at sigma = 50 / 255, measured before on other faces of the test set
    "bfcnn_celeba160_gray_rf05": 23.44,
    "bfcnn_celeba160_gray_rf13": 24.60,
    "bfcnn_celeba160_gray_rf43": 25.43,
    "unet_bsd400_gray_bias_free_0-100": 25.76,
}


@pytest.mark.parametrize("name", PEERS)
def test_peers_denoise_as_they_did_elsewhere(name):
    """On 16 faces; means over 16 differ between groups of faces by about .25 dB, and a wrong layer
    costs more."""
    for variable, what in (
        ("PEERS_ROOT", "the .npz files of the peers"),
        ("CELEBA_ROOT", "CelebA"),
    ):
        if variable not in os.environ:
            pytest.skip(f"set {variable} to a folder with {what}")
    x = data.load("celeba", split="test", size=80, n=480).images[464:]
    denoiser = load_peer(Path(os.environ["PEERS_ROOT"], f"{name}.npz"))
    with torch.no_grad():
        x_hat = denoiser(x + 50 / 255 * noise(*x.shape), 50 / 255)
    assert psnr(x_hat, x) == pytest.approx(PEERS[name], abs=0.25)
